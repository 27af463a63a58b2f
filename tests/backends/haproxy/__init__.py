"""HAProxy as a program that rulegen runs."""
