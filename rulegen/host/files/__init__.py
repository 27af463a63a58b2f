"""Files that a user names, for input and output; and whether other users could replace a folder."""
