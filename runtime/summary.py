"""What the layers of a model take: parameters, multiply-accumulates and the memory of their results, for one example.

In: an elaborated program. Out: a `Summary`, which the command line, Python and notebooks show alike. Nothing is
compiled for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import prod
from typing import TYPE_CHECKING

from .call.messages import human
from .progress import aligned

if TYPE_CHECKING:
    from ..compiler.elaborate import Program
    from ..compiler.elaborate.outline import Row
    from ..compiler.manifest import Manifest
    from ..compiler.types.sizes import Dim

COLUMNS = ("layer", "makes", "parameters", "MACs", "activations")
_TEXTS = 2  # columns that are no numbers


@dataclass(frozen=True)
class Summary:
    """`rows` are the model's and its layers', from outside; `slots` numbers that the optimiser remembers. As text it is
    a table."""

    signature: str
    rows: tuple[Row, ...]
    slots: int
    depth: int | None = None  # levels that are shown

    @classmethod
    def of(cls, program: Program, manifest: Manifest, depth: int | None = None) -> Summary:
        """Of the program's model."""
        assert manifest.model is not None
        ports = ", ".join(f"{p.name}: {p.type}" for p in program.ports(manifest.model))
        slots = sum(prod(v.shape) for v in manifest.variables if v.role == "slot")
        return cls(f"{manifest.model}({ports})", program.outline(manifest.model), slots, depth)

    def cells(self, depth: int | None = None) -> list[tuple[str, ...]]:
        """A row of texts for each layer, no deeper than so many levels."""
        return [_row(r) for r in self.rows if depth is None or r.depth <= depth]

    @property
    def totals(self) -> str:
        """What all of it takes, in words."""
        total = self.rows[0]
        return (
            f"{total.parameters:,} parameters, {_count(total.macs) or 0} multiply-accumulates, "
            f"{with_units(total.activations)} of activations, {total.state:,} numbers of state, "
            f"{self.slots:,} of optimiser state"
        )

    def __str__(self) -> str:
        table = aligned([COLUMNS, *self.cells(self.depth)], _TEXTS)
        return f"{table}\n\n{self.signature}\n{self.totals}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{html_table([COLUMNS, *self.cells(self.depth)], _TEXTS)}<div>{escape(self.totals)}</div>"


def html_table(rows: Sequence[Sequence[str]], left: int) -> str:
    """A table of HTML, its first row the names of the columns; the first `left` of these are texts."""
    lines = []
    for k, row in enumerate(rows):
        tag = "td" if k else "th"
        aligns = ("left" if j < left else "right" for j in range(len(row)))
        cells = (
            f'<{tag} style="text-align:{a};white-space:pre">{escape(c)}</{tag}>'
            for a, c in zip(aligns, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _row(r: Row) -> tuple[str, ...]:
    name = f"{'  ' * r.depth}{r.path.rpartition('.')[2]}: {r.kind}" if r.depth else r.path
    memory = with_units(r.activations) if r.activations else ""
    return name, ", ".join(map(str, r.results)), _count(r.parameters), _short(r.macs), memory


def with_units(size: Dim) -> str:
    """So many bytes, or what they depend on."""
    return human(size) if isinstance(size, int) else f"{size} B"


def _count(n: Dim) -> str:
    """A number, or what it depends on; nothing for 0."""
    return f"{n:,}" if isinstance(n, int) and n else str(n or "")


def _short(n: Dim) -> str:
    """A large number in millions or billions."""
    for scale, unit in ((10**9, "G"), (10**6, "M")):
        if isinstance(n, int) and n >= scale:
            return f"{n / scale:.3f} {unit}"
    return _count(n)
