"""The source `vectors`: existing vectors, from files of words or arrays of rows."""
