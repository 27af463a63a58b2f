"""The table of ingress engines, with one row each."""
