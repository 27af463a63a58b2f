"""The agent's HTTP servers: health for the kubelet and load balancers, metrics, and pages for root on this host."""
