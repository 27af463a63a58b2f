"""The proxy of userspace mode: its supervisor, its folder, and what it serves at run time."""
