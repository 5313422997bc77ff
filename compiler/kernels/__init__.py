"""Loop nests for each kind of kernel: pointwise, reductions, contractions, scatter."""
