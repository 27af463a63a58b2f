"""The supervisor of userspace mode and what it keeps running."""
