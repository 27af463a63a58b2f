"""Resolves a cluster snapshot to the model: each decision about a node is made here, once."""
