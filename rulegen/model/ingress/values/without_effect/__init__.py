"""Known names of ingress-nginx without effect in rulegen, each with the reason."""
