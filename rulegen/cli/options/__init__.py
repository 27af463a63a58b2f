"""Options that several commands have, and their values."""
