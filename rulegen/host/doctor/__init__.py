"""What `rulegen doctor` looks at: one file for each subject."""
