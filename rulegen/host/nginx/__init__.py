"""nginx on this node: its releases on disk, the sandbox that tries them, the process that serves them."""
