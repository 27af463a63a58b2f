"""Rules of a backend: access control, auth servers, and mirrors."""
