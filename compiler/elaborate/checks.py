"""In-file tests: what each line of a `test` block asserts, as outputs of one graph and facts about them.

Everything a test computes is one entry, `test:K`. What is known at compile time, or refused at compile time as `reject`
wants, is decided here; the rest is compared after running.
"""

from __future__ import annotations

from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic, Label
from ...dsl.errors import NncError, SourceError, error
from ...dsl.record import dataclass
from ...dsl.source import Span
from ..autodiff.differentiate import differentiate
from ..graph.nodes import Graph
from .context import Context
from .faults import Poisoned
from .home import Home
from .scope import MISSING, Scope, unknown
from .shapes import tensor
from .static import COMPARISONS, STATIC
from .values import Defined, Results, Tensor, Value, is_static, kind

STEP_NAMES = ("t", "epoch", "steps")


@dataclass(frozen=True, slots=True)
class Check:
    """One assertion. `passed` is None where it has to be run: then outputs `got` and `want` are compared with `op`,
    `==` allowing an absolute difference of `within`; without `want` the output `got` must be true everywhere."""

    span: Span
    passed: bool | None
    message: str = ""
    got: str = ""
    want: str | None = None
    op: str = "=="
    within: float = 0.0
    model: str | None = None  # `gradcheck Model`
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class TestPlan:
    name: str
    span: Span
    graph: Graph
    checks: tuple[Check, ...]


def plan(program: Home, test: ast.Test, entry: str) -> TestPlan:
    """What a test asserts; its graph is that of `entry`."""
    cx = program.context(entry)
    scope = Scope(program.scope)
    outputs: dict[str, Tensor] = {}
    checks: list[Check] = []
    for item in test.body:
        try:
            checks += _check(cx, scope, item, outputs)
        except Poisoned:
            continue
        except SourceError as e:
            checks.append(Check(item.span, False, e.diagnostics[0].message, diagnostics=e.diagnostics))
    graph = cx.builder.finish(tuple((n, t.node) for n, t in outputs.items()))
    return TestPlan(test.name, test.span, graph, tuple(checks))


def _check(cx: Context, scope: Scope, item: Any, outputs: dict[str, Tensor]) -> list[Check]:
    match item:
        case ast.Unread():
            cx.run((item,), scope)
            return []
        case ast.Assign():
            cx.run((item,), scope)
            for target in item.targets:
                if target.name in STEP_NAMES:  # `t = 5` in a test says what schedules called from it see
                    cx.ambient[target.name] = scope.names[target.name]
            return []
        case ast.GradCheck(model=model):
            defined = cx.program.scope.lookup(model)
            if defined is MISSING:
                raise unknown(model, item.span, list(cx.program.models), "model")
            if not (
                isinstance(defined, Defined) and isinstance(defined.definition, ast.Layer) and defined.definition.top
            ):
                other = cx.program.force(cx, defined, item.span)
                raise error("E0307", f"`gradcheck` takes a model, not {kind(other)}", item.span)
            return [Check(item.span, None, model=model)]
        case ast.Reject(text=text, value=value):
            return [_reject(cx.program, text, value, scope, item.span)]
        case ast.Case(call=call, expected=expected, within=within):
            got, want = cx.evaluate(call, scope), cx.evaluate(expected, scope)
            return _compare(
                cx, "==", got, want, _tolerance(cx, within, scope), item.span, (call.span, expected.span), outputs
            )
        case ast.Expect(condition=ast.Binary(op=op, left=a, right=b), within=within) if op in COMPARISONS:
            got, want = cx.evaluate(a, scope), cx.evaluate(b, scope)
            return _compare(cx, op, got, want, _tolerance(cx, within, scope), item.span, (a.span, b.span), outputs)
        case ast.Expect(condition=condition):
            holds = cx.evaluate(condition, scope)
            if isinstance(holds, bool):
                return [Check(item.span, holds, "" if holds else "this is false")]
            t = tensor(cx, holds, condition.span)
            if t.dtype != "bool":
                raise error("E0302", f"`expect` needs a bool, not {t.type}", condition.span)
            return [Check(item.span, None, got=_output(t, outputs))]
    raise AssertionError(item)


def _tolerance(cx: Context, e: ast.Expr | None, scope: Scope) -> float:
    if e is None:
        return 0.0
    value = cx.evaluate(e, scope)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise error("E0307", f"`within` takes a number from 0, not {kind(value)}", e.span)
    return float(value)


def _compare(
    cx: Context,
    op: str,
    got: Value,
    want: Value,
    within: float,
    span: Span,
    spans: tuple[Span, Span],
    outputs: dict[str, Tensor],
) -> list[Check]:
    if isinstance(got, Results) and isinstance(want, Results):
        if len(got.items) != len(want.items):
            return [Check(span, False, f"there are {len(got.items)} results, not {len(want.items)}")]
        return [
            c
            for g, w in zip(got.items, want.items, strict=True)
            for c in _compare(cx, op, g, w, within, span, spans, outputs)
        ]
    if is_static(got) and is_static(want) and not isinstance(got, tuple):
        if isinstance(got, int | float) and isinstance(want, int | float) and op == "==":
            passed = got == want or abs(got - want) <= within
        else:
            passed = bool(STATIC[op](got, want))
        return [Check(span, passed, "" if passed else f"this is {got}")]
    if isinstance(got, Tensor) or not isinstance(want, Tensor):
        g = tensor(cx, got, spans[0], None if isinstance(got, Tensor) else cx.real)
        w = tensor(cx, want, spans[1], None if isinstance(want, Tensor) else g.dtype)
    else:
        w = want
        g = tensor(cx, got, spans[0], w.dtype)
    fits = g.rank == w.rank and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(g.shape, w.shape, strict=True)
    )
    if g.rank and w.rank and not fits:
        raise error(
            "E0301",
            f"this is {g.type}, but {w.type} is expected",
            span,
            "",
            Label(spans[0], str(g.type)),
            Label(spans[1], str(w.type)),
        )
    return [Check(span, None, got=_output(g, outputs), want=_output(w, outputs), op=op, within=within)]


def _output(t: Tensor, outputs: dict[str, Tensor]) -> str:
    name = f"value_{len(outputs) + 1}"
    outputs[name] = t
    return name


def _reject(program: Home, text: str, value: ast.Expr, scope: Scope, span: Span) -> Check:
    """`value` must not compile, and the reason must contain `text`."""
    cx = program.context("reject")
    cx.faults = None  # one is what is wanted here
    known = {name: v for name, v in scope.names.items() if not isinstance(v, Tensor)}
    try:
        x = cx.evaluate(value, Scope(scope.parent, None, known))
        items = x.items if isinstance(x, Results) else (x,)
        roots = [tensor(cx, i, span) for i in items]
        differentiate(cx.builder.finish(tuple((f"v{k}", t.node) for k, t in enumerate(roots))))
    except Poisoned:
        return Check(span, True)
    except NncError as e:
        said = str(e)
        if text in said:
            return Check(span, True)
        return Check(
            span,
            False,
            f"it is refused, but the message does not say {text!r}: {e.diagnostics[0].message}",
        )
    return Check(span, False, "it compiles, but should be refused")
