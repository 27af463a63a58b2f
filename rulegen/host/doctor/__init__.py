"""The checks of `rulegen doctor`: one file for each subject."""
