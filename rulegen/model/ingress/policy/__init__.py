"""What an Ingress requests beside its routes: authentication, proxying, limits, redirects."""
