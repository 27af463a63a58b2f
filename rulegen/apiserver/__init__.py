"""The connection to the cluster's API server: lists, watches, single objects. One of the two places that do I/O."""
