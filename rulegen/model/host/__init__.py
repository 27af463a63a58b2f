"""What a host is, as values: facts, and limits of its connection tracking."""
