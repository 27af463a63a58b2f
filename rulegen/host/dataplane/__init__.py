"""Services in the kernel: reads the state and writes plans, also if the kernel rejects a part."""
