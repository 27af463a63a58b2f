"""The process itself: systemd, and memory."""
