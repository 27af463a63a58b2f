"""netfilter in the kernel: iptables, ipset, conntrack and nfacct, and who else writes rules."""
