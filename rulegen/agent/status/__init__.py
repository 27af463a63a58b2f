"""The status of Services and Ingresses: one of the nodes writes it, elected by Leases."""
