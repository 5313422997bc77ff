"""What stands inside a model, by its path: `Vae.decoder` is a layer that can be called, a value where the model was
called, and the root of a group of parameters; `Vae.decoder.W` is a parameter.
"""

from __future__ import annotations

from typing import Any

from ...dsl import ast
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.sizes import Size, symbols
from .context import Context
from .scope import Scope, unknown
from .values import POISON, REQUIRED, Defined, Given, Partial, Poison, Results, Shared, SizeCondition, Tensor


def path_of(e: ast.Expr, scope: Scope) -> str | None:
    """The path that `Vae.decoder.W` writes, if its first name is a model or a shared layer."""
    names: list[str] = []
    while isinstance(e, ast.Attribute):
        names.append(e.name)
        e = e.base
    if not isinstance(e, ast.Name) or not names or names[0] == "T":
        return None
    match scope.lookup(e.id):
        case Shared(path=root):
            return ".".join([root, *names[::-1]])
        case Defined(definition=ast.Layer(top=True)):
            return ".".join([e.id, *names[::-1]])
    return None


def value_at(cx: Context, path: str, span: Span) -> Tensor | Poison:
    """A parameter; or the value of a labelled call or of a layer, once the model was called."""
    if path in cx.inner and cx.level(cx.inner[path]) is not None:  # not that of a scan that has ended
        return cx.inner[path]
    model = path.split(".")[0]
    if path not in cx.program.variables:
        cx.program.discover(model)
    if path in cx.program.variables:
        return cx.variable(path)
    inside = cx.program.inner_values(model)
    if cx.is_unknown(path):
        return POISON
    if path in inside:
        raise error(
            "E0201",
            f"`{path}` has no value yet: `{model}` is not called above",
            span,
            help=f"call the model first, `y = {model}(x)`, then read what is inside",
        )
    raise unknown(path, span, [*cx.program.variables, *inside], "parameter or inner value")


def layer_at(cx: Context, path: str, span: Span) -> Shared | Poison:
    """The layer that stands at a path, with its parameters and the configuration that it was called with there."""
    model = path.split(".")[0]
    found = cx.layers.get(path) or cx.program.inner_layers(model).get(path)
    if found is not None:
        return found
    if cx.is_unknown(path):
        return POISON
    if path in cx.program.variables:
        raise error("E0307", f"`{path}` is a parameter, not a layer", span)
    if path in cx.program.inner_values(model):
        raise error("E0307", f"`{path}` is a value, not a layer: what is called there owns no parameters", span)
    raise unknown(path, span, list(cx.program.inner_layers(model)), "layer")


def configured(layer: Defined, given: Given, path: str) -> Shared:
    """A layer as it was called: what the call gave at compile time stays with it; what it gave at run time, another
    call must give as well."""
    names = [p.name for p in layer.definition.parameters]
    values = {**dict(zip(names, given.positional, strict=False)), **given.named}
    return Shared(layer, (), {n: REQUIRED if _is_late(v) else v for n, v in values.items()}, path)


def _is_late(value: Any) -> bool:
    """Whether a value belongs to one call: it is of tensors, or of sizes that only run time knows."""
    match value:
        case Tensor() | SizeCondition() | Poison():
            return True
        case Size():
            return bool(symbols(value))
        case tuple(items) | Results(items=items):
            return any(map(_is_late, items))
        case Partial(positional=positional, named=named) | Shared(positional=positional, named=named):
            return any(map(_is_late, (*positional, *named.values())))
    return False
