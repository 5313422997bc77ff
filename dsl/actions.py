"""What each rule of `grammar.lark` builds: children in, a node of `ast.py` out.

The functions bear the names of the rules and aliases; Lark calls them bottom-up with everything the rule matched, signs
and keywords included, so that spans are exact: a node reaches from the first of its children to the last. What the
grammar leaves open on purpose, because a sentence teaches more than "unexpected token", is decided here: what may stand
left of `=` and right of `|>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from . import ast
from .diagnostics import Label
from .errors import error
from .source import Span
from .tokens import Token, unread_names

DTYPES = ("f32", "f64", "i32", "i64", "bool")
KINDS = ("int", "float", "bool", "str", "fn")

Children = list[Any]  # tokens, nodes, and None where an optional part is absent


class Block(NamedTuple):
    statements: tuple[Any, ...]
    span: Span


class Results(NamedTuple):
    items: tuple[ast.Result, ...]


def _span(c: Children) -> Span:
    first = c[0].span
    last = next(x.span for x in reversed(c) if x is not None and not isinstance(x, Results))
    return Span(first.source, first.start, last.end)


def _nodes(c: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(x for x in c if isinstance(x, ast.Tree))


# --- definitions -----------------------------------------------------------------------------------------------------


def import_all(c: Children) -> ast.Import:
    return ast.Import(_text(c[1]), None, span=_span(c))


def import_some(c: Children) -> ast.Import:
    return ast.Import(_text(c[1]), tuple(t.text for t in c[3:] if t.type == "NAME"), span=_span(c))


def const(c: Children) -> ast.Const:
    return ast.Const(c[1].text, c[2], c[4], span=_span(c))


def hyper(c: Children) -> ast.Hyper:
    return ast.Hyper(c[1].text, c[2], c[4], c[-1], span=_span(c))


def function(c: Children) -> ast.Function:
    return ast.Function(c[1].text, c[2].items, _results(c[3]), _body(c[-1]), span=_span(c))


def export(c: Children) -> ast.Export:
    return ast.Export(c[1].text, c[2].items, _results(c[3]), _body(c[-1]), span=_span(c))


def layer(c: Children) -> ast.Layer:
    return ast.Layer(c[1].text, c[2].items, _results(c[3]), c[4].statements, False, span=_span(c))


def model(c: Children) -> ast.Layer:
    return ast.Layer(c[1].text, c[2].items, _results(c[3]), c[4].statements, True, span=_span(c))


def optimizer(c: Children) -> ast.Optimizer:
    return ast.Optimizer(c[1].text, c[2].items, c[3].statements, span=_span(c))


def train(c: Children) -> ast.Train:
    return ast.Train(c[1].text, c[2].items, _nodes(c[4:]), span=_span(c))


def test(c: Children) -> ast.Test:
    return ast.Test(_text(c[1]), _nodes(c[3:]), span=_span(c))


def _results(results: Results | None) -> tuple[ast.Result, ...]:
    return results.items if results else ()


def _body(body: Block | ast.Expr) -> Any:
    return body.statements if isinstance(body, Block) else body


# --- signatures and types --------------------------------------------------------------------------------------------


class Parameters(NamedTuple):
    items: tuple[ast.Parameter, ...]
    span: Span


def parameters(c: Children) -> Parameters:
    return Parameters(_nodes(c), _span(c))


def parameter(c: Children) -> ast.Parameter:
    return ast.Parameter(c[0].text, c[1], c[2], span=_span(c))


def annotation(c: Children) -> ast.Type:
    type_: ast.Type = c[1]
    return type_


def default(c: Children) -> ast.Expr:
    value: ast.Expr = c[1]
    return value


def one_result(c: Children) -> Results:
    return Results((ast.Result(None, c[1], span=c[1].span),))


def named_results(c: Children) -> Results:
    return Results(_nodes(c))


def result(c: Children) -> ast.Result:
    return ast.Result(c[0].text, c[1], span=_span(c))


def plain_type(c: Children) -> ast.Type:
    base = _base(c[0])
    return ast.Type(base, None if base in KINDS else (), span=c[0].span)


def tensor_type(c: Children) -> ast.Type:
    base = _base(c[0])
    if base not in DTYPES:
        raise error("E0109", f"`{base}` has no sizes", _span(c), "a compile-time value",
                    help="tensors are " + ", ".join(DTYPES))  # fmt: skip
    return ast.Type(base, _nodes(c), span=_span(c))


def _base(token: Token) -> str:
    if token.text in DTYPES or token.text in KINDS:
        return token.text
    other = _OTHER_TYPES.get(token.text.lower())
    known = f"dtypes are {', '.join(DTYPES)}; compile-time kinds {', '.join(KINDS)}"
    raise error("E0109", f"`{token.text}` is not a type", token.span, help=f"write `{other}`" if other else known,
                fix=other)  # fmt: skip


_OTHER_TYPES = {
    "float32": "f32", "float64": "f64", "double": "f64", "real": "f32", "int32": "i32", "int64": "i64", "long": "i64",
    "integer": "int", "string": "str", "boolean": "bool", "function": "fn", "tensor": "f32[...]",
}  # fmt: skip


def rest(c: Children) -> ast.Rest:
    return ast.Rest(c[1].text, span=_span(c))


# --- statements ------------------------------------------------------------------------------------------------------


def block(c: Children) -> Block:
    return Block(_nodes(c), _span(c))


def evaluate(c: Children) -> ast.Evaluate:
    return ast.Evaluate(c[0], span=_span(c))


def assign(c: Children) -> ast.Assign:
    left = c[0]
    places = left.items if isinstance(left, ast.Tuple) else (left,)
    return ast.Assign(tuple(_target(p) for p in places), c[2], span=_span(c))


def _target(e: ast.Expr) -> ast.Target:
    match e:
        case ast.Name(id=name):
            return ast.Target(name, None, span=e.span)
        case ast.Index(base=ast.Name(id=name), items=items) if not any(isinstance(i, ast.Slice) for i in items):
            return ast.Target(name, items, span=e.span)  # type: ignore[arg-type]
        case ast.Index(base=ast.Name()):
            raise error("E0107", "a slice cannot be assigned to", e.span,
                        help="arrays do not change: make a new one, by `concat` or index notation")  # fmt: skip
        case ast.Binary(op="=="):
            raise error("E0107", "a comparison cannot be assigned to", e.span)
        case ast.Attribute():
            raise error("E0107", "an attribute cannot be assigned to", e.span)
    raise error("E0107", "an expression cannot be assigned to", e.span,
                help="left of `=` stands a name `y`, names `(a, b)`, or a name with indices `y[i, j]`")  # fmt: skip


def update(c: Children) -> ast.Update:
    if not isinstance(c[0], ast.Name | ast.Attribute | ast.Call):
        raise error("E0107", "only a whole parameter or state can be updated", c[0].span,
                    help="left of `:=` stands a name")  # fmt: skip
    return ast.Update(c[0], c[2], span=_span(c))


def variable(c: Children) -> ast.Variable:
    return ast.Variable(c[0].text, c[1].text, c[2], c[4], c[3].type == "TILDE", span=_span(c))


def share(c: Children) -> ast.Share:
    return ast.Share(c[1].text, c[3], span=_span(c))


def return_value(c: Children) -> ast.Return:
    return ast.Return(c[1], span=_span(c))


def if_statement(c: Children) -> ast.If:
    match c[-1]:
        case Block(statements=otherwise):
            pass
        case ast.If() as chained:
            otherwise = (chained,)
        case _:
            otherwise = ()
    return ast.If(c[1], c[2].statements, otherwise, span=_span(c))


def when(c: Children) -> ast.When:
    return ast.When(c[2].statements, c[-1].statements if c[-1] else (), span=_span(c))


def repeat(c: Children) -> ast.Repeat:
    return ast.Repeat(None, c[1], c[2].statements, span=_span(c))


def repeat_indexed(c: Children) -> ast.Repeat:
    return ast.Repeat(c[1].text, c[3], c[4].statements, span=_span(c))


def scan(c: Children) -> ast.Scan:
    return ast.Scan(c[1].text, c[3], c[5], c[6].statements, span=_span(c))


def metric(c: Children) -> ast.Metric:
    return ast.Metric(c[1].text, c[3], span=_span(c))


def minimize(c: Children) -> ast.Minimize:
    value, *over = _nodes(c)
    return ast.Minimize(c[1].text, value, tuple(over[::2]), tuple(over[1::2]), span=_span(c))


def stop_when(c: Children) -> ast.StopWhen:
    return ast.StopWhen(c[2], span=_span(c))


def update_rule(c: Children) -> ast.UpdateRule:
    return ast.UpdateRule(c[1].statements, span=_span(c))


def case(c: Children) -> ast.Case:
    return ast.Case(c[1], c[3], c[-1], span=_span(c))


def expect(c: Children) -> ast.Expect:
    return ast.Expect(c[1], c[-1], span=_span(c))


def gradcheck(c: Children) -> ast.GradCheck:
    return ast.GradCheck(c[1].text, span=_span(c))


def reject(c: Children) -> ast.Reject:
    return ast.Reject(_text(c[1]), c[2], span=_span(c))


# --- expressions -----------------------------------------------------------------------------------------------------


def pipe(c: Children) -> ast.Pipe:
    return ast.Pipe(c[0], _pipe_target(c[2]), None, span=_span(c))


def labelled_pipe(c: Children) -> ast.Pipe:
    return ast.Pipe(c[0], _pipe_target(c[4]), c[2].text, span=_span(c))


def _pipe_target(e: ast.Expr) -> ast.Expr:
    match e:
        case ast.Call() | ast.Name() | ast.Attribute() | ast.Unread():
            return e
        case ast.Binary(left=ast.Call() | ast.Name() | ast.Pipe(), op=op):
            raise error("E0108", "a value cannot be piped into an expression", e.span,
                        help=f"`|>` binds loosest: write `(x |> f(a)) {op} ...`, or name the piped value")  # fmt: skip
    raise error("E0108", "a value cannot be piped into this", e.span,
                help="right of `|>` stands a call `f(a)` or a name `f`")  # fmt: skip


def if_expr(c: Children) -> ast.IfExpr:
    return ast.IfExpr(c[1], c[3], c[5], span=_span(c))


def binary(c: Children) -> ast.Binary:
    left, sign, right = c
    return ast.Binary(sign.text, left, right, sign.span, span=_span(c))


def unary(c: Children) -> ast.Unary:
    return ast.Unary(c[0].text, c[1], span=_span(c))


def range_of(c: Children) -> ast.Range:
    return ast.Range(c[0], c[2], span=_span(c))


def call(c: Children) -> ast.Call:
    arguments = _nodes(c[2:])
    named: ast.Argument | None = None
    for a in arguments:
        if a.name is not None:
            named = a
        elif named is not None:
            raise error("E0114", "a positional argument comes after a named one", a.span, "",
                        Label(named.span, f"`{named.name}` is given by name"))  # fmt: skip
    return ast.Call(c[0], arguments, span=_span(c))


def positional(c: Children) -> ast.Argument:
    return ast.Argument(None, c[0], span=c[0].span)


def named(c: Children) -> ast.Argument:
    return ast.Argument(c[0].text, c[2], span=_span(c))


def index(c: Children) -> ast.Index:
    return ast.Index(c[0], _nodes(c[2:]), span=_span(c))


def slice_of(c: Children) -> ast.Slice:
    start, _, stop, _, step = c
    return ast.Slice(start, stop, step, span=_span([x for x in c if x is not None]))


def attribute(c: Children) -> ast.Attribute:
    return ast.Attribute(c[0], c[2].text, span=_span(c))


def name(c: Children) -> ast.Name:
    return ast.Name(c[0].text, span=c[0].span)


def integer(c: Children) -> ast.Int:
    return ast.Int(int(c[0].text), span=c[0].span)


def floating(c: Children) -> ast.Float:
    return ast.Float(float(c[0].text), span=c[0].span)


def boolean(c: Children) -> ast.Bool:
    return ast.Bool(c[0].type == "TRUE", span=c[0].span)


def string(c: Children) -> ast.Str:
    return ast.Str(_text(c[0]), span=c[0].span)


def group(c: Children) -> ast.Expr:
    inner: ast.Expr = replace(c[1], span=_span(c))  # so that what follows begins at the bracket
    return inner


def tuple_of(c: Children) -> ast.Tuple:
    return ast.Tuple(_nodes(c), span=_span(c))


def list_of(c: Children) -> ast.List:
    return ast.List(_nodes(c), span=_span(c))


def comprehension(c: Children) -> ast.Comprehension:
    return ast.Comprehension(c[0].text, _nodes(c[:-2]), c[-2], span=_span(c))


def binder(c: Children) -> ast.Binder:
    if len(c) == 1:
        return ast.Binder(c[0].text, False, None, span=c[0].span)
    if not isinstance(c[2], ast.Range):
        raise error("E0115", f"`{c[0].text}` must run over a range", c[2].span,
                    help="write `u in 0..2`: up to and without 2")  # fmt: skip
    return ast.Binder(c[0].text, False, c[2], span=_span(c))


def rest_binder(c: Children) -> ast.Binder:
    return ast.Binder(c[1].text, True, None, span=_span(c))


# --- what does not parse (see `recovery`) ----------------------------------------------------------------------------


def unread(c: Children) -> ast.Unread:
    body = c[1].statements if len(c) > 1 and c[1] is not None else ()
    return ast.Unread(*unread_names(c[0].span.text), body, span=_span(c))


def unread_item(c: Children) -> ast.Assign | ast.Metric | ast.Unread:
    """A line of a train block: a setting is one, whatever its value."""
    item = unread(c)
    value = ast.Unread((), item.names, span=item.span)
    match item.names:
        case ["metric", name, *_]:
            return ast.Metric(name, value, span=item.span)
        case [name, *_] if name not in ("minimize", "stop", "update", "metric") and not item.body:
            return ast.Assign((ast.Target(name, None, span=item.span),), value, span=item.span)
    return item


def unread_signature(c: Children) -> ast.Unread:
    """A definition whose signature does not parse; its body does."""
    names = unread(c[2:3]).names
    match c[3:]:
        case [Block(statements=body)]:
            pass
        case [Token(type="EQUALS"), value]:
            body = (evaluate([value]),)
        case items:
            body = _nodes(items)
    return ast.Unread((c[1].text,), names, body, span=_span(c))


def unread_type(c: Children) -> ast.Type:
    return ast.Type("", None, span=c[0].span)


_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\"": '"', r"\\": "\\"}


def _text(token: Token) -> str:
    body = token.text[1:-1]
    return re.sub(r"\\.", lambda m: _ESCAPES.get(m.group(), m.group()), body) if "\\" in body else body
