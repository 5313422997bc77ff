"""What cannot be imported: all of it at once, each with its node, its operator and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....dsl.diagnostics import Diagnostic
from ....dsl.errors import UnsupportedError
from ...call.messages import listed


class Refused(Exception):
    """One node cannot be imported; the text says why."""


@dataclass(frozen=True, slots=True)
class Refusal:
    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} `{self.node}`: {self.reason}"


class RefusedImport(UnsupportedError):
    """`refusals` has one for each node; what only reads their results is not listed."""

    def __init__(self, path: str, refusals: Sequence[Refusal]):
        self.refusals = tuple(refusals)
        operators = dict.fromkeys(r.operator for r in refusals)
        n = len(refusals)
        head = f"{path}: {n} node{'s' if n != 1 else ''} cannot be imported, of {listed(list(operators))}"
        super().__init__([Diagnostic("E0634", head), *(Diagnostic("E0634", str(r)) for r in refusals)])
