"""Names of the chains and sets of kube-proxy and rulegen in every mode, and how to recognise their objects.

All modes use this package, so that one mode can remove the state of another.
"""
