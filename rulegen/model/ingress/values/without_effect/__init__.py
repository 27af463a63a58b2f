"""Names of ingress-nginx that are known and have no effect here, with the reason for each."""
