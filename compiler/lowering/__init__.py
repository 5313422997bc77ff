"""Graph to loops: kernels, and where every value lies."""
