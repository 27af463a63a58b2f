"""What kube-proxy and we call things on a node, in every mode: names of chains and sets, and how ours are told.

All modes share it, so that one knows what another left behind.
"""
