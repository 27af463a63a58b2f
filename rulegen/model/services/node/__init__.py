"""The node that Services are decided for: its addresses, ports in use, and what is known of it."""
