"""What the agent says of itself: log, metrics, Events."""
