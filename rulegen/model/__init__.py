"""World to model: every decision about a node, taken once."""
