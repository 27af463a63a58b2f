"""One file for each command; `rulegen.cli.main` loads the one that is called."""
