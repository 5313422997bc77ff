"""One call of an entry point: the user's values into arrays, the call, and what interrupts it."""
