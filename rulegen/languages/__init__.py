"""Languages: each has its kernel state as values, and prints it, reads it, and writes the script of a change."""
