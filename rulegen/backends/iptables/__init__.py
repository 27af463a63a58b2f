"""The iptables mode: the rules that kube-proxy 1.36 writes in its iptables mode, except for comments."""
