"""A node that serves Ingresses, asked over real connections: see `lab` for who is there.

A host of the lab is a process in a network namespace, and the node has processes, mounts and a /run of its own too: so
whatever nginx leaves running ends with the tests, even where they are killed, and nothing of this machine is touched.
"""
