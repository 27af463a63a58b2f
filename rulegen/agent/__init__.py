"""The node agent: watches the cluster, writes changes, repairs what others change, reports its state."""
