"""Services in the kernel: what is there, and a plan written to it, also where the kernel rejects a part."""
