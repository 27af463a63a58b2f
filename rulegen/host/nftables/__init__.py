"""Objects of nftables written to the kernel, and read from it, over netlink: no process is started."""
