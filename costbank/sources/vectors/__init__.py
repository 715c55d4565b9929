"""The source `vectors`: vectors that exist already, from files of words or arrays of rows."""
