"""Netlink sockets: messages, their attributes, and answers to many sent at once."""
