"""Constants and hypers: evaluated when first asked for, each once; a hyper may be given from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...dsl import ast
from ...dsl.errors import error
from ..manifest import HyperSpec
from .context import Context
from .faults import Poisoned
from .frozen import Files
from .modules import Lazy, Modules
from .scope import Scope, unknown
from .signatures import check_kind, is_kind
from .values import POISON, is_static


class Hypers:
    """The values of the constants and hypers of a program under the hypers that are `given`. `specs` are those of the
    hypers met so far, for the manifest."""

    def __init__(self, given: Mapping[str, Any]):
        self.given = given
        self.specs: dict[str, HyperSpec] = {}
        self._known: dict[int, Any] = {}  # by definition
        self.files = Files()
        self._evaluating: list[ast.Const | ast.Hyper] = []

    def check(self, cx: Context, modules: Modules) -> None:
        """Evaluate every hyper of the program's files, and read the files of constants; what is given must be among the
        hypers."""
        declared: dict[str, tuple[ast.Hyper, Scope]] = {}
        for module, scope in modules.files.values():
            declared |= {d.name: (d, scope) for d in module.definitions if isinstance(d, ast.Hyper)}
        for name in self.given:
            if name not in declared:
                raise unknown(name, None, list(declared), "hyper")
        for d, scope in declared.values():
            with cx.recovering():
                self.force(cx, Lazy(d, scope))
        for module, scope in modules.files.values():
            for const in (d for d in module.definitions if isinstance(d, ast.Const)):
                with cx.recovering():
                    self.files.read(cx, const, scope)

    def force(self, cx: Context, lazy: Lazy) -> Any:
        """The value of a constant or hyper."""
        d = lazy.definition
        if id(d) in self._known:
            return self._known[id(d)]
        if any(d is other for other in self._evaluating):
            raise error("E0205", f"`{d.name}` is defined by itself", d.span)
        value: Any = POISON
        with cx.recovering():
            value = self._value(cx, d, lazy.scope)
        if is_static(value) or value is POISON:
            self._known[id(d)] = value
        return value

    def _value(self, cx: Context, d: ast.Const | ast.Hyper, scope: Scope) -> Any:
        """What a definition says, evaluated."""
        self._evaluating.append(d)
        try:
            if isinstance(d, ast.Hyper):
                value = self._hyper(cx, d, scope)
            elif d.type is not None and d.type.dims is not None:
                value = self.files.value(cx, d, scope)
            else:
                value = cx.evaluate(d.value, scope)
        finally:
            self._evaluating.pop()
        if isinstance(d, ast.Const) and is_kind(d.type):
            value = check_kind(ast.Parameter(d.name, d.type, None, span=d.span), value, d.value.span, "this file")
        return value

    def _hyper(self, cx: Context, d: ast.Hyper, scope: Scope) -> Any:
        parameter = ast.Parameter(d.name, d.type, None, span=d.span)
        default = check_kind(parameter, cx.evaluate(d.default, scope), d.default.span, "")
        choices = _choices(cx, d, scope)
        if default is POISON or POISON in _numbers(choices):
            raise Poisoned
        value = _parse(d, self.given[d.name]) if d.name in self.given else default
        if not _within(value, choices):
            raise error(
                "E0308",
                f"hyper `{d.name}` is {value!r}, which is outside its range",
                d.span,
                f"{d.choices.span.text if d.choices is not None else ''}",
            )
        self.specs[d.name] = HyperSpec(d.name, d.type.base, value, default, choices)
        return value


def _numbers(choices: Any) -> list[Any]:
    return [x for c in choices or () for x in (c if isinstance(c, list) else [c])]


def _choices(cx: Context, d: ast.Hyper, scope: Scope) -> Any:
    match d.choices:
        case None:
            return None
        case ast.Unread():
            raise Poisoned
        case ast.Range(start=a, stop=b):
            return ["range", cx.evaluate(a, scope), cx.evaluate(b, scope)]
        case ast.Call(function=ast.Name(id="log"), arguments=(low, high)):
            return ["log", cx.evaluate(low.value, scope), cx.evaluate(high.value, scope)]
        case ast.List(items=items):
            return ["in", [cx.evaluate(i, scope) for i in items]]
    raise error("E0308", "a range is a list `[a, b]`, an interval `a..b` or `log(a, b)`", d.choices.span)


def _parse(d: ast.Hyper, value: Any) -> Any:
    """A hyper given from outside, perhaps as text."""
    wanted = {"int": int, "float": float, "bool": bool, "str": str}.get(d.type.base)
    try:
        if isinstance(value, str) and wanted is bool:
            return {"true": True, "false": False}[value]
        if wanted is int and (isinstance(value, bool) or (isinstance(value, float) and value != int(value))):
            raise ValueError
        if wanted is float and isinstance(value, bool):
            raise ValueError
        if wanted is not None:
            return wanted(value)
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    raise error("E0308", f"hyper `{d.name}` is of the kind {d.type.base}, not {value!r}", d.span)


def _within(value: Any, choices: Any) -> bool:
    match choices:
        case ["in", listed]:
            return value in listed
        case [_, low, high]:
            return bool(low <= value <= high)
    return True
