"""Train blocks: a table of settings for the runtime, and one graph for a step."""

from .alone import alone
from .examples import bound_by
from .settings import averaging, spec
from .step import grow, ports

__all__ = ["alone", "averaging", "bound_by", "grow", "ports", "spec"]
