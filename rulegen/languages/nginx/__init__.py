"""nginx: a configuration as data, its text, and how the text is read back."""
