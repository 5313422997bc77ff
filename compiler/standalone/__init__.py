"""Networks that leave as files: what a C program sees of one, and the code behind it."""
