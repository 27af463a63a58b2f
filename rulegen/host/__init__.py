"""The host: the only room that does I/O. Tools, netlink, /proc, files and the API server; observe and write."""
