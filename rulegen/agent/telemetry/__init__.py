"""What the agent reports about itself: log, metrics, Events."""
