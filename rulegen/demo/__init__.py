"""rulegen at work, in network namespaces of its own: the machine's rules are not touched."""
