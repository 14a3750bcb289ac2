"""What answers over HTTPS."""
