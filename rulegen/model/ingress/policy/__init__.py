"""The policy of an Ingress: everything except its routes, such as authentication, proxying, limits, redirects."""
