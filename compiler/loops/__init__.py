"""The loop IR: its grammar, its text both ways, its meaning, and the algebra of its indices."""
