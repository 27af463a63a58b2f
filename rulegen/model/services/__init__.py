"""Services: which frontends this node serves, and which endpoints their connections go to."""
