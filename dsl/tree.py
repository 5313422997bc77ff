"""What all nodes of the syntax tree have: where they stand in the text, and equality of all else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, dataclass_transform

from .record import dataclass, field, fields
from .source import Span

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def node(cls: type[T]) -> type[T]:
    """A kind of node. That none changes is seen by who checks types, not at run time: half a hundred frozen classes
    would take longer to make than a small program to compile."""
    return dataclass(slots=True, eq=False, repr=False)(cls)


@node
class Tree:
    span: Span = field(compare=False, repr=False, kw_only=True)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _parts(self) == _parts(other)

    def __hash__(self) -> int:
        return hash((type(self), *_parts(self)))

    def __repr__(self) -> str:
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return f"{type(self).__name__}({', '.join(shown)})"


def _parts(tree: Any) -> list[Any]:
    return [getattr(tree, f.name) for f in fields(tree) if f.compare]


@node
class Comment(Tree):
    """A `#` comment, kept beside the tree for the formatter."""

    text: str  # with the `#`


@node
class Unread(Tree):
    """Text that does not parse, in the place of an expression, a statement or a definition (see `recovery`): nobody
    knows what it gives its first names, `gives`, or what any of its `names` means that has no other meaning. `body` is
    the block behind it."""

    gives: tuple[str, ...]
    names: tuple[str, ...]
    body: tuple[Tree, ...] = ()


def walk(tree: Tree) -> Iterator[Tree]:
    """A tree and all that is in it."""
    waiting: list[Any] = [tree]
    while waiting:
        x = waiting.pop()
        if isinstance(x, Tree):
            yield x
            waiting += _parts(x)
        elif isinstance(x, tuple):
            waiting += x
