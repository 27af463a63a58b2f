"""Languages: each knows its state as data, how to print it, how to read it, how to script a change."""
