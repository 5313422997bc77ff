"""What an expression can be worth while a program is elaborated.

Compile-time values are plain Python: `int` and `Size` (kind int), `float`, `bool`, `str`, and `tuple` for lists.
Everything that exists only at run time is a `Tensor`: a node of the graph under construction. The rest are things one
can call, and groups of parameters. `Value` is any of them; what a scope holds besides (definitions that wait, or that a
name is missing) and what a builtin or an optimiser is given for a parameter that it may go without are no values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, Union

from ...dsl import ast
from ...dsl.record import dataclass, field
from ...dsl.source import Span
from ..graph.nodes import Builder
from ..types.facts import Relation
from ..types.sizes import Dim, Size
from ..types.tensors import TensorType
from .faults import Poisoned
from .scope import Scope


@dataclass(frozen=True, slots=True)
class Tensor:
    """A node of `builder`; comparing tensors compares nodes, never numbers."""

    node: str
    builder: Builder = field(compare=False, repr=False)

    @property
    def type(self) -> TensorType:
        return self.builder.type(self.node)

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return len(self.type.shape)


@dataclass(frozen=True, slots=True)
class SizeCondition:
    """What only run time can decide of sizes: in each of `clauses` one relation holds, and `require` guards that."""

    clauses: tuple[tuple[Relation, ...], ...]

    def __str__(self) -> str:
        several = len(self.clauses) > 1
        texts = [" or ".join(map(str, c)) for c in self.clauses]
        return " and ".join(f"({t})" if several and len(c) > 1 else t for t, c in zip(texts, self.clauses, strict=True))


@dataclass(frozen=True, slots=True)
class Results:
    """Several results of one call; `names` are the signature's, or None for a plain tuple."""

    names: tuple[str, ...] | None
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters (or their gradients) by path, of the model or part at `root`. Arithmetic maps over the members,
    reductions run over all of them."""

    members: Mapping[str, Tensor]
    root: str = ""

    def relative(self, path: str) -> str:
        """The path of a member, seen from the root."""
        return path.removeprefix(f"{self.root}.") if self.root else path

    def of(self, members: Mapping[str, Tensor]) -> Group:
        """What was made of each member."""
        return Group(members, self.root)


@dataclass(frozen=True, slots=True)
class Builtin:
    """A primitive or composite the compiler knows: `call(cx, arguments)`; see `builtins`."""

    name: str
    parameters: tuple[tuple[str, Any], ...]  # (name, default); REQUIRED where there is none
    call: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Defined:
    """A `fn`, `layer`, `model`, `optimizer` or `export` definition and the scope it closes over."""

    definition: ast.Function | ast.Layer | ast.Optimizer | ast.Export
    scope: Scope = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Partial:
    """A call handed over as a function: `init = normal(0, 0.05)`, `clip = global_norm(1.0)`."""

    function: Builtin | Defined | Partial
    positional: tuple[Value, ...]
    named: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Shared:
    """`share tok = Embedding(256, d)`: one instance, called by name."""

    layer: Defined
    positional: tuple[Value, ...]
    named: Mapping[str, Any]  # REQUIRED for what each call must give
    path: str


@dataclass(frozen=True, slots=True)
class Bound:
    """`Adam(lr = 1e-3)`: an optimiser with its arguments."""

    optimizer: Defined
    arguments: Mapping[str, Any]


class Poison:
    """What nobody knows, for the statement that says it is faulty. All that is made of it is poison as well, and
    nothing is said of it: the fault was told."""

    def __repr__(self) -> str:
        return "poison"


POISON = Poison()


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of one call: in order, by name; where the call is, and where each argument is."""

    positional: tuple[Value, ...]
    named: Mapping[str, Value]
    span: Span
    spans: Mapping[int | str, Span] = field(default_factory=dict)

    def after(self, first: tuple[Value, ...], spans: Mapping[int | str, Span]) -> Given:
        """With more in front, whose spans are numbered from 0; the others already count them."""
        return Given((*first, *self.positional), self.named, self.span, {**spans, **self.spans})

    def before(self, positional: tuple[Value, ...], named: Mapping[str, Value]) -> Given:
        """Followed by what a partial application holds; what the call names wins."""
        return Given((*self.positional, *positional), {**named, **self.named}, self.span, self.spans)


class Arguments:
    """What a builtin receives: values as attributes, the call's span, and the span of each argument."""

    def __init__(self, span: Span, values: dict[str, Any], spans: dict[str, Span]):
        self.span, self.values, self.spans = span, values, spans

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def at(self, name: str) -> Span:
        return self.spans.get(name, self.span)


Axis = tuple[Dim, tuple[tuple[str, int], ...]]  # of a contraction's operand: constant + sum of index * coefficient
OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "^": "pow",
    "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "and": "and", "or": "or",
}  # fmt: skip

Number = Union[int, Size, float]
Function = Union[Builtin, Defined, Partial, Shared]
Static = Union[bool, int, float, str, Size, tuple["Value", ...]]
Value = Union[Static, Tensor, SizeCondition, Results, Group, Function, Bound, Poison]


def is_static(value: Any) -> bool:
    """Known at compile time: may steer `if`, be a size, or stand in a setting."""
    return isinstance(value, bool | int | float | str | Size) or (
        isinstance(value, tuple) and all(is_static(v) for v in value)
    )


def is_size(value: Any) -> TypeGuard[int | Size]:
    """A whole number, known now or only at run time; in Python a bool is an int, here it is not."""
    return isinstance(value, int | Size) and not isinstance(value, bool)


def kind(value: Any) -> str:
    """What a person would call it, for messages. Raises `Poisoned` where it is not known: then there is none."""
    match value:
        case Poison():
            raise Poisoned
        case Tensor():
            return str(value.type)
        case bool():
            return "a compile-time bool"
        case int():
            return f"the number {value}"
        case Size():
            return f"the size {value}"
        case float():
            return f"the number {value!r}"
        case str():
            return f"the text {value!r}"
        case tuple():
            return "a list"
        case Results(items=items):
            return f"{len(items)} results"
        case SizeCondition():
            return f"the condition {value}, which only run time can decide"
        case Group():
            return "a group of parameters"
        case Builtin(name=name):
            return f"the built-in function `{name}`"
        case Defined(definition=ast.Layer(top=True, name=name)):
            return f"the model `{name}`"
        case Defined(definition=d):
            return f"the {type(d).__name__.lower()} `{d.name}`"
        case Partial() | Shared():
            return "a function"
        case Bound(optimizer=o):
            return f"the optimizer `{o.definition.name}`"
    return type(value).__name__
