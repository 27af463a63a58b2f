"""The cluster, as its API server has it: lists, watches, single objects. One of the two places that do I/O."""
