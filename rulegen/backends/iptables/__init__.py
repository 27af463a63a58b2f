"""Services as iptables rules, the same as kube-proxy 1.36 writes in its iptables mode, comments aside."""
