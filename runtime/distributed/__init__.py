"""Several processes that train one network, over MPI: who they are, sums that do not depend on them, and their
faults."""
