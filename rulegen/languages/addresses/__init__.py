"""The language of network devices: a dummy device and the addresses bound to it."""
