"""`grad` written out as graph."""
