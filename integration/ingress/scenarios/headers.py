"""Todo."""

SCENARIOS = ()
