"""Rules of a backend about who may pass, who is asked, and who gets copies."""
