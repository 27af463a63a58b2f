"""One file for each command; `rulegen.cli.main` loads the called one."""
