"""A language and a mode that the tests alone have: three small files, one row each."""
