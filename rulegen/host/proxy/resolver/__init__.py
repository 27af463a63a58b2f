"""The resolver process of nginx, which leaves out forbidden addresses."""
