"""The forms that files of cases may have: how each is read, and what is an error."""
