"""nginx on this node: its releases on disk, the sandbox that tests them, and its processes."""
