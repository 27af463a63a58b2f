"""The process that nginx requests names; it keeps forbidden addresses back."""
