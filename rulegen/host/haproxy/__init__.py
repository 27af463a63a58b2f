"""HAProxy on this host."""
