"""The language of policy routing: rules by packet mark, and routes that deliver packets to this host."""
