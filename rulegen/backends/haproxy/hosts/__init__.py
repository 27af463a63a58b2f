"""What each host adds to a configuration of HAProxy, and how it is joined with that of all others."""
