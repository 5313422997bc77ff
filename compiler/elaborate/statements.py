"""Statements: what a body does to its scope, to the variables, and to the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import NncError, SourceError, error
from ...dsl.tree import walk
from ..types.sizes import Dim, Size, symbols
from ..types.stacks import is_stack
from ..types.tensors import TensorType
from . import calls, rolled, scans
from .context import Context
from .faults import Poisoned
from .groups import matched
from .home import Declared
from .notation import assign
from .parts import path_of, value_at
from .scope import MISSING, Instance, Scope, unknown
from .shapes import broadcast, broadcast_to, tensor
from .signatures import dtype_of
from .stacked import member
from .static import fractional
from .values import POISON, Defined, Given, Group, Results, Shared, Tensor, Value, kind
from .variables import declare


def run(cx: Context, body: Sequence[ast.Statement], scope: Scope, last: bool = True) -> Value | None:
    """Execute statements in order. Returns the value of `return`, or None; at the end of a definition (`last`) also
    that of a bare expression behind them."""
    for s in body:
        if isinstance(s, ast.Assign):
            scope.later |= {t.name: t.span for t in s.targets}
    for k, s in enumerate(body):
        try:
            value = _statement(cx, s, scope, last=last and k == len(body) - 1)
        except (SourceError, Poisoned) as e:
            cx.give_up(e, s.span)
            value = _poisoned(cx, s, scope, last=last and k == len(body) - 1)
        if value is not None:
            return value
    return None


def _poisoned(cx: Context, s: ast.Statement, scope: Scope, last: bool) -> Value | None:
    """What a statement does that was given up: the names that it gives a value have none that is known."""
    returns = last and isinstance(s, ast.Evaluate)
    cx.doubt(scope)
    for node in walk(s):
        match node:
            case ast.Target(name=name) | ast.Share(name=name):
                scope.bind(name, POISON, node.span)
            case ast.Variable(name=name):
                scope.bind(name, POISON, node.span)
                with cx.recovering(), cx.drawing(POISON):
                    cx.evaluate(node.init, scope)
            case ast.Unread(gives=names):
                scope.names |= dict.fromkeys(names, POISON)
            case ast.Update(target=ast.Name(id=name)):
                path = scope.instance.variables.get(name) if scope.instance is not None else None
                if path is not None:
                    cx.updates.setdefault(path, cx.variable(path))
                scope.bind(name, POISON, node.span)
            case ast.Return():
                returns = True
    return POISON if returns else None


def _statement(cx: Context, s: ast.Statement, scope: Scope, last: bool) -> Value | None:
    match s:
        case ast.Assign(targets=(ast.Target(name=name, indices=indices),)) if indices is not None:
            if not scans.collects(cx, s, scope):
                _name(cx, scope, s.targets[0], assign(cx, s, scope))
        case ast.Assign(targets=targets):
            _assign(cx, s, targets, cx.evaluate(s.value, scope), scope)
        case ast.Update():
            _update(cx, s, scope)
        case ast.Variable():
            _declare(cx, s, scope)
        case ast.Share():
            _share(cx, s, scope)
        case ast.Return(value=value):
            result = cx.evaluate(value, scope)
            cx.returned = value.span
            return result
        case ast.If():
            while not cx.condition(s.condition, scope):
                if len(s.otherwise) != 1 or not isinstance(s.otherwise[0], ast.If):  # `else if` may come many times
                    return run(cx, s.otherwise, scope, last)
                s = s.otherwise[0]
            return run(cx, s.then, scope, last)
        case ast.When():
            return run(cx, s.training if cx.training else s.otherwise, scope, last)
        case ast.Repeat(index=name, count=count, body=inner):
            return _repeat(cx, s, name, count, inner, scope)
        case ast.Scan():
            scans.scan(cx, s, scope)
        case ast.Evaluate(value=ast.Unread() as unread) | (ast.Unread() as unread):
            scope.doubtful.update(unread.names)
            if unread.body:
                run(cx, unread.body, scope, last=False)  # type: ignore[arg-type]
            raise Poisoned
        case ast.Evaluate(value=value):
            result = cx.evaluate(value, scope)
            return result if last else None
    return None


def _repeat(
    cx: Context, s: ast.Repeat, name: str | None, count: ast.Expr, body: Sequence[ast.Statement], scope: Scope
) -> Value | None:
    """The body, written out so many times."""
    first: Dim = 0
    try:
        if isinstance(count, ast.Range):
            first = cx.integer(count.start, scope, "the start of `repeat`")
            end = cx.integer(count.stop, scope, "the end of `repeat`")
        else:
            end = cx.integer(count, scope, "the count of `repeat`")
    except (SourceError, Poisoned) as e:
        cx.give_up(e, s.span)
        inner = scope.child()  # once, for what is wrong inside
        if name is not None:
            inner.bind(name, POISON, s.span)
        run(cx, body, inner, last=False)
        raise Poisoned from None
    if not isinstance(first, int) or not isinstance(end, int):
        raise error("E0305", f"`repeat` needs a number known when the model is made, not {end}", count.span)
    cx.unroll(max(end - first, 0), count.span)
    before = rolled.Counts(cx, scope.instance)
    for k in range(first, end):
        if k > first and rolled.roll(cx, s, scope, end - k, before):
            if name is not None:
                scope.bind(name, end - 1, s.span)
            return None
        if name is not None:
            scope.bind(name, k, s.span)
        value = run(cx, body, scope, last=False)
        if value is not None:
            return value
    return None


def _assign(cx: Context, s: ast.Assign, targets: tuple[ast.Target, ...], value: Value, scope: Scope) -> None:
    if value is POISON:
        raise Poisoned
    if len(targets) == 1:
        if isinstance(value, tuple) and fractional(value):
            value = tensor(
                cx, value, s.value.span
            )  # a list of reals is a tensor; a list of whole numbers may be a shape
        _name(cx, scope, targets[0], value)
        return
    items = value.items if isinstance(value, Results) else value if isinstance(value, tuple) else None
    if items is None or len(items) != len(targets):
        count = "one value" if items is None else f"{len(items)} values"
        raise error("E0203", f"{len(targets)} names are assigned from {count}", s.span, "", Label(s.value.span, count))
    for target, item in zip(targets, items, strict=True):
        _name(cx, scope, target, item)


def _name(cx: Context, scope: Scope, target: ast.Target, value: Value) -> None:
    scope.bind(target.name, value, target.span)
    if cx.met is not None:
        cx.met(target.span, value)


# --- variables -------------------------------------------------------------------------------------------------------


def _declare(cx: Context, s: ast.Variable, scope: Scope) -> None:
    """`weight W: f32[out, D] ~ init(...)`: a variable of the instance this scope belongs to."""
    instance = scope.instance
    if instance is None:
        raise error("E0307", f"a {s.role} can only be declared inside a layer, a model or an optimizer", s.span)
    if instance.optimizer and s.role != "state":
        raise error("E0307", f"an optimizer keeps `state`, it has no {s.role}", s.span)
    if instance.optimizer and s.name in ("p", "g", "t", "role"):
        raise error("E0202", f"`{s.name}` is given in an optimizer, so it cannot be declared", s.span)
    if s.name in instance.variables:
        raise error(
            "E0202", f"`{s.name}` is declared twice in here", s.span, "", Label(instance.declared[s.name], "first here")
        )
    path = instance.child(s.name)
    type_ = _variable_type(cx, s, instance, scope)
    role = "slot" if instance.optimizer else s.role
    declare(cx, Declared(path, type_, role, s.init, s.drawn, _snapshot(scope), s.span, cx.asked()))
    instance.variables[s.name] = path
    instance.declared[s.name] = s.span
    scope.bind(s.name, cx.variable(path), s.span)


def _variable_type(cx: Context, s: ast.Variable, instance: Instance, scope: Scope) -> TensorType:
    """The declared type; what an optimizer keeps is of its parameter's type where it says none."""
    if s.type is None:
        if not instance.optimizer:
            raise error(
                "E0203",
                f"the {s.role} `{s.name}` needs a type",
                s.span,
                help=f"for example `{s.role} {s.name}: f32[10] = 0`",
            )
        return cx.program.variables[instance.path].type
    shape: list[int] = []
    for d in s.type.dims or ():
        if isinstance(d, ast.Name) and scope.lookup(d.id) is MISSING and not scope.doubts(d.id):
            raise unknown(
                d.id,
                d.span,
                list(scope.visible()),
                "size",
                "a size that the caller may choose stands in the signature, such as `x: f32[B, D]`",
            )
        size = scope.names.get(d.name, MISSING) if isinstance(d, ast.Rest) else cx.evaluate(d, scope)
        shape += [_known(cx, n, d, s) for n in (size if isinstance(size, tuple) else (size,))]
    return TensorType(dtype_of(cx, s.type), tuple(shape))


def _known(cx: Context, n: Any, d: ast.Expr | ast.Rest, s: ast.Variable) -> int:
    if isinstance(n, Size):
        names = sorted(symbols(n))
        if cx.faults is not None and not cx.faults.is_new_size(names[0]):
            raise Poisoned
        raise error(
            "E0305",
            f"the size of {s.role} `{s.name}` depends on {' and '.join(names)}, which must be known when "
            "the model is made",
            d.span,
            f"this is {n}",
            help=f'give it: `--size {names[0]}=4`, or `sizes = {{"{names[0]}": 4}}` in Python',
        )
    if isinstance(n, bool) or not isinstance(n, int):
        raise error("E0307", f"a size must be a whole number, not {kind(n)}", d.span)
    if n < 0:
        raise error("E0301", f"a size cannot be negative, but this is {n}", d.span)
    return n


def _snapshot(scope: Scope) -> Scope:
    """The scope as it is now: what an initial value may refer to later (not to tensors: they belong to this graph)."""
    return Scope(scope.parent, None, dict(scope.names), dict(scope.spans))


def _update(cx: Context, s: ast.Update, scope: Scope) -> None:
    """`name := e`. From here on the name means the new value; the variable changes when the step ends. In a train block
    also `Net.W := e` and `params(Net.body) := e`, member by member."""
    if isinstance(s.target, ast.Name):
        path = _own_variable(s.target, scope)
        store(cx, path, cx.evaluate(s.value, scope), s.value.span)
        scope.bind(s.target.id, cx.variable(path), s.span)
        return
    if not cx.learning:
        raise error(
            "E0307",
            "a layer updates its own variables, by their names",
            s.target.span,
            help="a train block may update any: a line of it, behind the step, or its `update`",
        )
    if isinstance(s.target, ast.Attribute):
        store(cx, _variable(cx, s.target, scope), cx.evaluate(s.value, scope), s.value.span)
        return
    group = cx.evaluate(s.target, scope)
    if not isinstance(group, Group):
        raise error("E0307", f"`:=` updates a variable or a group of them, not {kind(group)}", s.target.span)
    value = cx.evaluate(s.value, scope)
    new = matched((group, value), s.value.span) if isinstance(value, Group) else None
    for path in group.members:
        with member(cx, path, s.span) as own:
            store(cx, path, value if new is None else own(new[path][1]), s.value.span)


def _variable(cx: Context, e: ast.Attribute, scope: Scope) -> str:
    """The path of any variable, as `Net.dense_1.W` writes it."""
    path = path_of(e, scope)
    if path is not None and value_at(cx, path, e.span) is POISON:
        raise Poisoned
    if path is None or path not in cx.program.variables:
        raise error("E0307", f"`:=` updates a variable, but `{e.span.text}` is none", e.span)
    return path


def _own_variable(e: ast.Name, scope: Scope) -> str:
    """The path of a variable of the instance that a scope belongs to."""
    variables = scope.instance.variables if scope.instance is not None else {}
    if e.id in variables:
        return variables[e.id]
    found = scope.lookup(e.id)
    if found is POISON or (found is MISSING and scope.doubts(e.id)):
        raise Poisoned
    if found is MISSING:
        raise unknown(e.id, e.span, list(variables), "variable")
    raise error(
        "E0307",
        f"`:=` updates a variable, but `{e.id}` is none",
        e.span,
        help=f"write `{e.id} = ...` to name a value",
    )


def store(cx: Context, path: str, value: Value, span: Any, what: str = "the new value") -> None:
    """Give the variable at `path` a new value when the step ends."""
    if cx.frames and not (cx.frames[-1].turn is not None and is_stack(path)):
        raise error(
            "E0307",
            f"`{path}` cannot be updated inside a scan: a variable changes once, when the step ends",
            span,
            help="carry a value through the scan, and update the variable with it behind the scan",
        )
    wanted = cx.variable_type(path)
    x = tensor(cx, value, span, None if isinstance(value, Tensor) else wanted.dtype)
    if x.dtype != wanted.dtype:
        raise error("E0302", f"`{path}` is {wanted}, but {what} is {x.type}", span)
    if x.rank == 0:
        x = broadcast_to(cx, x, wanted.shape, span, ())
    if x.shape != wanted.shape:
        old = cx.variable(path)
        try:
            fitted, _ = broadcast(cx, x, old, span, (span, None))
        except NncError:
            fitted = x
        if fitted.shape != wanted.shape:
            raise error("E0301", f"`{path}` is {wanted}, but {what} is {x.type}", span)
        x = fitted
    cx.update(path, cx.here(x, span))


def _share(cx: Context, s: ast.Share, scope: Scope) -> None:
    if scope.instance is None:
        raise error("E0307", "`share` can only stand inside a model or a layer", s.span)
    target = s.value
    if isinstance(target, ast.Call):
        function = cx.evaluate(target.function, scope)
        given = calls.arguments(cx, function, target.arguments, target.span, scope, piped=1)
    else:
        function, given = cx.evaluate(target, scope), Given((), {}, target.span)
    if not (isinstance(function, Defined) and isinstance(function.definition, ast.Layer)):
        raise error("E0307", f"`share` takes a layer, not {kind(function)}", target.span)
    path = scope.instance.part(s.name, s.span, f"a part is already called `{s.name}` in here")
    scope.bind(s.name, Shared(function, given.positional, given.named, path), s.span)
