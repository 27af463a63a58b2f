"""rulegen compiles Kubernetes Services and Ingresses into the state of one node, and keeps that state up to date."""

__version__ = "0.1.0"
KUBE_PROXY = "1.36"
"""The release of kube-proxy whose rules rulegen writes."""
