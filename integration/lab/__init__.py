"""A small cluster to try rules in, with real packets: see `topology` for who is there and `hosts` for what they can do.

A host is a process (`peer`) in a network namespace; the namespace is a bare one or that of a container. Either way it
ends with its process, and the process ends when the tests do, so nothing stays behind even where they are killed.
"""
