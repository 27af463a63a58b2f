"""The node agent: watches the cluster, writes what changes, mends what others break, and tells how it fares."""
