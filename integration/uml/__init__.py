"""A kernel with IPVS on any machine: user-mode Linux (Debian's `user-mode-linux`), which runs as a plain process.

It sees the machine's files, but through an overlay in memory: nothing that it writes gets out. Two things use it: tests
with the mark `uml`, which the same pytest then runs inside, one by one (`outside`, `inside`), and the bench.
"""
