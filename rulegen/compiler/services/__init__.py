"""Compiles Services to rules, sets, virtual servers and addresses, and to the difference from a node's state."""
