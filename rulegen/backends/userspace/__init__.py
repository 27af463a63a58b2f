"""The userspace mode: a proxy of this node accepts TCP connections; rules decide which connections reach it."""
