"""The syntax tree of a `.nn` file: what was written, nothing that was concluded.

Every node carries the span it was read from, which takes no part in equality. Names are strings: nothing is resolved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .source import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    span: Span = field(compare=False, repr=False)


# --- expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name(Tree):
    id: str


@dataclass(frozen=True, slots=True)
class Int(Tree):
    value: int


@dataclass(frozen=True, slots=True)
class Float(Tree):
    value: float


@dataclass(frozen=True, slots=True)
class Bool(Tree):
    value: bool


@dataclass(frozen=True, slots=True)
class Str(Tree):
    value: str


@dataclass(frozen=True, slots=True)
class List(Tree):
    """`[a, b, c]`"""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Tuple(Tree):
    """`(a, b)`; a parenthesised single expression is just that expression."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary(Tree):
    """`-x`, `not x`"""

    op: Literal["-", "not"]
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Tree):
    """Arithmetic `+ - * / // % @ ^`, comparison `== != < <= > >=`, logic `and or`; `op_span` is the operator itself."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Range(Tree):
    """`a..b`: a up to, not including, b"""

    start: Expr
    stop: Expr


@dataclass(frozen=True, slots=True)
class IfExpr(Tree):
    """`if c then a else b`"""

    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class Argument(Tree):
    """One argument of a call; `name` is None where it is positional."""

    name: str | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Tree):
    function: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Pipe(Tree):
    """`x |> label: f(a)`; `target` is a `Call` or a bare name; `label` is None where there is none."""

    value: Expr
    target: Expr
    label: str | None


@dataclass(frozen=True, slots=True)
class Attribute(Tree):
    """`x.name`"""

    base: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Slice(Tree):
    """`a:b:c` inside an index; each part may be None."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, slots=True)
class Rest(Tree):
    """`*s` inside an index, a comprehension or a type: any further axes."""

    name: str


@dataclass(frozen=True, slots=True)
class Index(Tree):
    """`x[i, 0:3, *s]`: a slice of an array, or an index-notation reference; the builder tells which."""

    base: Expr
    items: tuple[Expr | Slice | Rest, ...]


@dataclass(frozen=True, slots=True)
class Binder(Tree):
    """`c`, `u in 0..2` or `*s` among the bound indices of a comprehension."""

    name: str
    rest: bool
    range: Range | None


@dataclass(frozen=True, slots=True)
class Comprehension(Tree):
    """`sum[c, u in 0..2](body)`: a reduction over bound indices."""

    reduction: Literal["sum", "mean", "prod", "max", "min"]
    binders: tuple[Binder, ...]
    body: Expr


Expr = (
    Name | Int | Float | Bool | Str | List | Tuple | Unary | Binary | Range | IfExpr | Call | Pipe | Attribute | Index
    | Comprehension
)  # fmt: skip


# --- types -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Type(Tree):
    """`f32`, `f32[B, 3, *s]` (dims not None), or a compile-time kind `int float bool str fn` (dims None)."""

    base: str
    dims: tuple[Expr | Rest, ...] | None


@dataclass(frozen=True, slots=True)
class Parameter(Tree):
    """`x: f32[B, D]`, `out: int`, `eps: float = 1e-5`, or `lr` without a type."""

    name: str
    type: Type | None
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Result(Tree):
    """One result of a signature; `name` is None for a single unnamed result."""

    name: str | None
    type: Type


# --- statements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target(Tree):
    """Left of `=`: `y`, or with index notation `y[b, *s]` (`indices` not None)."""

    name: str
    indices: tuple[Expr | Rest, ...] | None


@dataclass(frozen=True, slots=True)
class Assign(Tree):
    """`y = e`, `(a, b) = e`, `y[i, j] = e`"""

    targets: tuple[Target, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Update(Tree):
    """`name := e`: committed when the step ends."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Variable(Tree):
    """`weight W: f32[out, D] ~ init(...)` or `state m = 0`; `drawn` tells `~` from `=`."""

    role: Literal["weight", "bias", "state"]
    name: str
    type: Type | None
    init: Expr
    drawn: bool


@dataclass(frozen=True, slots=True)
class Share(Tree):
    """`share tok = Embedding(256, d)`"""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Return(Tree):
    value: Expr


@dataclass(frozen=True, slots=True)
class If(Tree):
    condition: Expr
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class When(Tree):
    """`when training { } else { }`"""

    training: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Repeat(Tree):
    """`repeat 3 { }`, or `repeat i in 0..3 { }` with a compile-time index."""

    index: str | None
    count: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Scan(Tree):
    """`scan t in 0..T until cond { }`"""

    index: str
    range: Expr
    until: Expr | None
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Evaluate(Tree):
    """An expression as a statement: what a block without `return` ends with."""

    value: Expr


Statement = Assign | Update | Variable | Share | Return | If | When | Repeat | Scan | Evaluate


# --- definitions: `doc` is the block of comment lines right above -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Import(Tree):
    """`import "a.nn"` (names None) or `from "a.nn" import A, B`"""

    path: str
    names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Const(Tree):
    name: str
    type: Type | None
    value: Expr
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Hyper(Tree):
    """`hyper lr: float = 1e-3 in log(1e-5, 1e-1)`; `choices` is the expression after `in`, or None."""

    name: str
    type: Type
    default: Expr
    choices: Expr | None
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Function(Tree):
    """`fn f(x) -> T = e` (body is an Expr) or `fn f(x) { ... }` (a tuple of statements)."""

    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Result, ...]
    body: Expr | tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Layer(Tree):
    """`layer` or `model`; a model has `top` True."""

    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Result, ...]
    body: tuple[Statement, ...]
    top: bool
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Optimizer(Tree):
    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Export(Tree):
    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Result, ...]
    body: Expr | tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Metric(Tree):
    """`metric accuracy = e`"""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class StopWhen(Tree):
    condition: Expr


@dataclass(frozen=True, slots=True)
class UpdateRule(Tree):
    """`update { ... }`: learning that says its own update."""

    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Train(Tree):
    """`train Model(x, label: i32[B]) { ... }`; settings such as `loss = ...`, `batch = 64` are `Assign`s."""

    model: str
    parameters: tuple[Parameter, ...]
    body: tuple[Assign | Metric | StopWhen | UpdateRule, ...]
    doc: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Case(Tree):
    """`case f(a) => b within tol`; `within` None means exactly equal."""

    call: Expr
    expected: Expr
    within: Expr | None


@dataclass(frozen=True, slots=True)
class Expect(Tree):
    """`expect a == b within tol`"""

    condition: Expr
    within: Expr | None


@dataclass(frozen=True, slots=True)
class GradCheck(Tree):
    model: str


@dataclass(frozen=True, slots=True)
class Reject(Tree):
    """`reject "text" e`: `e` must fail to compile, with this text in the message."""

    text: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Test(Tree):
    name: str
    body: tuple[Case | Expect | GradCheck | Reject | Assign, ...]
    doc: str = field(default="", compare=False)


Definition = Import | Const | Hyper | Function | Layer | Optimizer | Train | Export | Test


@dataclass(frozen=True, slots=True)
class Comment(Tree):
    """A `#` comment, kept beside the tree for the formatter."""

    text: str  # with the `#`


@dataclass(frozen=True, slots=True)
class Module(Tree):
    """One file. `comments` are in source order and do not take part in equality."""

    definitions: tuple[Definition, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
