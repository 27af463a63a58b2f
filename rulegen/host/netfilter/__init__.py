"""netfilter in the kernel: iptables, ipset, conntrack, nfacct, and notices about writes of other programs."""
