"""What dumps say in terms of Services: data, and its display."""
