"""The processes of nginx: started, watched, reloaded, and asked what they serve."""
