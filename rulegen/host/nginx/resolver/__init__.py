"""The process that nginx asks for names; it keeps forbidden addresses back."""
