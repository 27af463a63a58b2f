"""Tools, and nginx, that hang or fail without a message: the agent reports it, ends them, and the rest goes on."""
