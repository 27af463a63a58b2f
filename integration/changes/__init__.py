"""Changes of the rules: nothing is lost on the way, whatever was there before and whatever happens meanwhile."""
