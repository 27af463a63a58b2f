"""Todo."""
SCENARIOS = ()
