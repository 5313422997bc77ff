"""Text to syntax tree, errors as data, and the standard library."""
