"""IPVS in the kernel: virtual servers, and the addresses that are bound for them."""
