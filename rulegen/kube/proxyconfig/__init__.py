"""kube-proxy's configuration file, read and checked as kube-proxy does."""
