"""Plans: what must change, as data, and how it is shown."""
