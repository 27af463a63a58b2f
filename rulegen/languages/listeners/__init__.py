"""The proxy of userspace mode as objects: listeners, pools, servers, and frontends."""
