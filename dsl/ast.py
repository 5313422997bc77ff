"""The syntax tree of a `.nn` file: what was written, nothing that was concluded.

Every node carries the span it was read from, which takes no part in equality. Names are strings: nothing is resolved.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from .source import Span
from .tree import Comment as Comment
from .tree import Tree as Tree
from .tree import Unread as Unread
from .tree import node

# --- expressions and types -------------------------------------------------------------------------------------------


@node
class Name(Tree):
    id: str


@node
class Int(Tree):
    value: int


@node
class Float(Tree):
    value: float


@node
class Bool(Tree):
    value: bool


@node
class Str(Tree):
    value: str


@node
class List(Tree):
    """`[a, b, c]`"""

    items: tuple[Expr, ...]


@node
class Tuple(Tree):
    """`(a, b)`; a parenthesised single expression is just that expression."""

    items: tuple[Expr, ...]


@node
class Unary(Tree):
    """`-x`, `not x`"""

    op: Literal["-", "not"]
    operand: Expr


@node
class Binary(Tree):
    """Arithmetic `+ - * / // % @ ^`, comparison `== != < <= > >=`, logic `and or`; `op_span` is the operator itself."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@node
class Range(Tree):
    """`a..b`: a up to, not including, b"""

    start: Expr
    stop: Expr


@node
class IfExpr(Tree):
    """`if c then a else b`"""

    condition: Expr
    then: Expr
    otherwise: Expr


@node
class Argument(Tree):
    """One argument of a call; `name` is None where it is positional."""

    name: str | None
    value: Expr


@node
class Call(Tree):
    function: Expr
    arguments: tuple[Argument, ...]


@node
class Pipe(Tree):
    """`x |> label: f(a)`; `target` is a `Call` or a bare name; `label` is None where there is none."""

    value: Expr
    target: Expr
    label: str | None


@node
class Attribute(Tree):
    """`x.name`"""

    base: Expr
    name: str


@node
class Slice(Tree):
    """`a:b:c` inside an index; each part may be None."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@node
class Rest(Tree):
    """`*s` inside an index, a comprehension or a type: any further axes."""

    name: str


@node
class Index(Tree):
    """`x[i, 0:3, *s]`, `x[]`: a slice of an array, or an index-notation reference; the builder tells which."""

    base: Expr
    items: tuple[Expr | Slice | Rest | Binder, ...]  # a range only on the left of `=`


@node
class Binder(Tree):
    """`c`, `u in 0..2` or `*s` among the bound indices of a comprehension; `u in 0..2` on the left of `=` as well."""

    name: str
    rest: bool
    range: Range | None


@node
class Comprehension(Tree):
    """`sum[c, u in 0..2](body)`: a reduction over bound indices."""

    reduction: Literal["sum", "mean", "prod", "max", "min"]
    binders: tuple[Binder, ...]
    body: Expr


Expr = (
    Name | Int | Float | Bool | Str | List | Tuple | Unary | Binary | Range | IfExpr | Call | Pipe | Attribute | Index
    | Comprehension | Unread
)  # fmt: skip


@node
class Type(Tree):
    """`f32`, `f32[B, 3, *s]` (dims not None), or a compile-time kind `int float bool str fn` (dims None)."""

    base: str  # empty where it does not parse
    dims: tuple[Expr | Rest, ...] | None


@node
class Parameter(Tree):
    """`x: f32[B, D]`, `out: int`, `eps: float = 1e-5`, or `lr` without a type."""

    name: str
    type: Type | None
    default: Expr | None


@node
class Result(Tree):
    """One result of a signature; `name` is None for a single unnamed result."""

    name: str | None
    type: Type


# --- statements ------------------------------------------------------------------------------------------------------


@node
class Target(Tree):
    """Left of `=`: `y`, or with index notation `y[b, i in 0..3, *s]` (`indices` not None)."""

    name: str
    indices: tuple[Expr | Rest | Binder, ...] | None


@node
class Assign(Tree):
    """`y = e`, `(a, b) = e`, `y[i, j] = e`"""

    targets: tuple[Target, ...]
    value: Expr


@node
class Update(Tree):
    """`name := e`: committed when the step ends. In a train block also `Net.W := e` and `params(Net) := e`."""

    target: Name | Attribute | Call
    value: Expr


@node
class Variable(Tree):
    """`weight W: f32[out, D] ~ init(...)` or `state m = 0`; `drawn` tells `~` from `=`."""

    role: Literal["weight", "bias", "state"]
    name: str
    type: Type | None
    init: Expr
    drawn: bool


@node
class Share(Tree):
    """`share tok = Embedding(256, d)`"""

    name: str
    value: Expr


@node
class Return(Tree):
    value: Expr


@node
class If(Tree):
    condition: Expr
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@node
class When(Tree):
    """`when training { } else { }`"""

    training: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@node
class Repeat(Tree):
    """`repeat 3 { }`, or `repeat i in 0..3 { }` with a compile-time index."""

    index: str | None
    count: Expr
    body: tuple[Statement, ...]


@node
class Scan(Tree):
    """`scan t in 0..T until cond { }`"""

    index: str
    range: Expr
    until: Expr | None
    body: tuple[Statement, ...]


@node
class Evaluate(Tree):
    """An expression as a statement: what a block without `return` ends with."""

    value: Expr


Statement = Assign | Update | Variable | Share | Return | If | When | Repeat | Scan | Evaluate | Unread


# --- definitions: `doc` is the block of comment lines right above -----------------------------------------------------


@node
class Import(Tree):
    """`import "a.nn"` (names None) or `from "a.nn" import A, B`"""

    path: str
    names: tuple[str, ...] | None


@node
class Const(Tree):
    name: str
    type: Type | None
    value: Expr
    doc: str = field(default="", compare=False)


@node
class Hyper(Tree):
    """`hyper lr: float = 1e-3 in log(1e-5, 1e-1)`; `choices` is the expression after `in`, or None."""

    name: str
    type: Type
    default: Expr
    choices: Expr | None
    doc: str = field(default="", compare=False)


@node
class Function(Tree):
    """`fn f(x) -> T = e` (body is an Expr) or `fn f(x) { ... }` (a tuple of statements)."""

    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Result, ...]
    body: Expr | tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@node
class Layer(Tree):
    """`layer` or `model`; a model has `top` True."""

    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Result, ...]
    body: tuple[Statement, ...]
    top: bool
    doc: str = field(default="", compare=False)


@node
class Optimizer(Tree):
    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@node
class Export(Tree):
    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Result, ...]
    body: Expr | tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@node
class Metric(Tree):
    """`metric accuracy = e`"""

    name: str
    value: Expr


@node
class Minimize(Tree):
    """`minimize loss = e over GROUP with OPTIMIZER, GROUP with OPTIMIZER`"""

    name: str
    value: Expr
    groups: tuple[Expr, ...]
    optimizers: tuple[Expr, ...]  # one for each group


@node
class StopWhen(Tree):
    condition: Expr


@node
class UpdateRule(Tree):
    """`update { ... }`: learning that says its own update."""

    body: tuple[Statement, ...]


@node
class Train(Tree):
    """`train Model(x, label: i32[B]) { ... }`; settings such as `loss = ...`, `batch = 64` are `Assign`s."""

    model: str
    parameters: tuple[Parameter, ...]
    body: tuple[Assign | Metric | Minimize | Update | StopWhen | UpdateRule | Unread, ...]
    doc: str = field(default="", compare=False)


@node
class Case(Tree):
    """`case f(a) => b within tol`; `within` None means exactly equal."""

    call: Expr
    expected: Expr
    within: Expr | None


@node
class Expect(Tree):
    """`expect a == b within tol`"""

    condition: Expr
    within: Expr | None


@node
class GradCheck(Tree):
    model: str


@node
class Reject(Tree):
    """`reject "text" e`: `e` must fail to compile, with this text in the message."""

    text: str
    value: Expr


@node
class Test(Tree):
    name: str
    body: tuple[Case | Expect | GradCheck | Reject | Assign | Unread, ...]
    doc: str = field(default="", compare=False)


Definition = Import | Const | Hyper | Function | Layer | Optimizer | Train | Export | Test | Unread


@node
class Module(Tree):
    """One file. `comments` are in source order and do not take part in equality."""

    definitions: tuple[Definition, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
