"""The difference of two states: changed objects, and how a change is shown."""
