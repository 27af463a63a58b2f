"""Which Ingress has which host and path, and which certificate the host has."""
