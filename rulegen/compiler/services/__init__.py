"""Services to rules, sets, virtual servers and addresses, and to the difference from what a node has."""
