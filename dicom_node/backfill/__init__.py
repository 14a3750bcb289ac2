"""Protect an archive before it moves: each object once, however often it breaks off."""
