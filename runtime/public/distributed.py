"""Several processes that train one network: `mpirun -n 4 python script.py`.

ranks = nnc.distributed.init()  # None where nothing started several
net.fit(comm=ranks)
"""

from nnc.runtime.distributed.ranks import Ranks

init = Ranks.here

__all__ = ["Ranks", "init"]
