"""Location blocks of nginx, one module for each subject."""
