"""IPVS in the kernel: virtual servers, and the addresses bound for them."""
