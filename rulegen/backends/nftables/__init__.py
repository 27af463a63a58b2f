"""The nftables mode: the table that kube-proxy 1.36 writes in its nftables mode, except for comments."""
