"""From objects to a plan. `plan`, `apply`, `export` and the agent share it; nothing here does I/O."""
