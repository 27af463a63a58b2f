"""What an Ingress asks for beside its routes: authentication, proxying, limits, redirects."""
