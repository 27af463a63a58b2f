"""From objects to a plan, for `plan`, `apply`, `export` and the agent; nothing here does I/O."""
