"""Plans of several nodes: a table of nodes, the differences that they share, and reports of them."""
