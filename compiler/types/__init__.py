"""Sizes and tensor types: what everything else in the compiler speaks of."""
