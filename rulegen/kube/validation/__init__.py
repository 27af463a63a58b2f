"""What an object must be, as the API server checks it: one file for each kind."""
