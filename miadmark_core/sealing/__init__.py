"""Sealed records: who can undo a mark is decided here and nowhere else."""
