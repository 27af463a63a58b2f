"""Values about the host: its facts, and the limits of its conntrack."""
