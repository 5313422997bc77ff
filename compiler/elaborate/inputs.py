"""The inputs of an entry: a leaf of its graph for each tensor parameter, the size names of the signature as symbols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...dsl import ast
from ...dsl.errors import error
from ..types.sizes import Dim, symbol
from ..types.tensors import TensorType
from . import calls
from .context import Context
from .limits import check_type
from .scope import MISSING, Scope
from .signatures import dtype_of, given_late, is_kind, names_in
from .values import POISON, Defined, Given, Tensor, Value, is_size, is_static, kind


def inputs(cx: Context, parameters: tuple[ast.Parameter, ...], home: Scope | None = None) -> dict[str, Value]:
    """An `input` leaf for each tensor parameter; compile-time parameters take their defaults."""
    scope = Scope(home or cx.program.scope)
    values: dict[str, Value] = {}
    for p in parameters:
        values[p.name] = POISON
        with cx.recovering():
            values[p.name] = _input(cx, p, scope)
        scope.bind(p.name, values[p.name], p.span)
    return values


def _input(cx: Context, p: ast.Parameter, scope: Scope) -> Value:
    """What an entry is given for a parameter."""
    if p.type is None:
        what = f"the input `{p.name}` needs a type"
        raise error("E0203", what, p.span, help=f"for example `{p.name}: f32[B, 10]`")
    if not p.type.base:
        return POISON
    if is_kind(p.type):
        if p.default is None:
            what = f"`{p.name}` is compile-time configuration and needs a default here"
            raise error("E0203", what, p.span, help=given_late(p))
        return cx.evaluate(p.default, scope)
    default = None if p.default is None else cx.evaluate(p.default, scope)
    return input_leaf(cx, p, scope, default)


def input_leaf(cx: Context, p: ast.Parameter, scope: Scope, default: Any = None) -> Tensor:
    """One input; the names of sizes that are new in its type are bound in `scope`."""
    assert p.type is not None
    shape = tuple(_size(cx, p, d, scope) for d in p.type.dims or ())
    type_ = TensorType(dtype_of(cx, p.type), shape)
    check_type(type_, p.span)
    if default is not None and (shape or not is_static(default)):
        raise error("E0307", f"only a scalar input can have a default, but `{p.name}` is {type_}", p.span)
    attrs = {"default": default} if default is not None else {}
    return Tensor(cx.builder.emit("input", name=p.name, span=p.span, type=type_, **attrs), cx.builder)


def _size(cx: Context, p: ast.Parameter, d: ast.Expr | ast.Rest, scope: Scope) -> Dim:
    if isinstance(d, ast.Rest):
        raise error(
            "E0305",
            f"the number of axes of the input `{p.name}` must be known",
            d.span,
            help="write each axis: `f32[B, D]`",
        )
    for name in names_in(d):
        if scope.lookup(name) is MISSING:
            scope.bind(name, cx.program.sizes.get(name, symbol(name)), d.span)
    size = cx.evaluate(d, scope)
    if not is_size(size):
        shared = isinstance(d, ast.Name) and not is_static(size)
        raise error(
            "E0307",
            f"a size must be a whole number, not {kind(size)}",
            d.span,
            help="give one of the two another name" if shared else None,
        )
    if isinstance(size, int) and size < 0:
        raise error("E0301", f"a size cannot be negative, but this is {size}", d.span)
    return size


def home_of(cx: Context, model: ast.Layer) -> Scope:
    """The definitions of the file that a model is from."""
    found = cx.program.scope.lookup(model.name)
    return found.scope if isinstance(found, Defined) else cx.program.scope


def call_model(cx: Context, model: ast.Layer, values: Mapping[str, Value] | None = None) -> Value:
    """What a model makes of its inputs: of `values`, or of leaves."""
    home = home_of(cx, model)
    given = inputs(cx, model.parameters, home) if values is None else values
    return calls.call_layer(cx, Defined(model, home), Given(tuple(given.values()), {}, model.span), model.name)
