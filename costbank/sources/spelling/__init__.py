"""The source `spelling`: vectors from the bytes of the tokens."""
