"""HAProxy as an ingress engine of the command line."""
