"""The quality of a bank's vectors."""
