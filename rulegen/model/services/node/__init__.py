"""The node that Services are resolved for: its Node object, addresses and ports in use."""
