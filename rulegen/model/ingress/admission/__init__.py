"""Which Ingresses are served, and which of them are decided together."""
