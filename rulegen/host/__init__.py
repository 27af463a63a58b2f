"""This machine: one of the two packages that do I/O; the other is apiserver."""
