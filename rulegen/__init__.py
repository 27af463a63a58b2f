"""rulegen compiles Kubernetes Services and Ingresses into the state of one node, and keeps that state up to date."""

__version__ = "0.1.0"
