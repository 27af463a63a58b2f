"""The edge: the only rooms that touch the host."""
