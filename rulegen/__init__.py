"""rulegen compiles Kubernetes Services into what one node needs, and keeps the node so."""

__version__ = "0.1.0"
