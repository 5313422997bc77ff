"""One optimiser step: gradients, accumulated over batches, clipped, given to the optimiser; then the running average.

In: the losses of a train block, and what learns from each. Out: updates of parameters, optimiser slots and averages in
the context. Whether a batch is the last of its step is known at run time only, so with `accumulate` each step is
computed and taken over or not, without a branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ....dsl import ast
from ....dsl.diagnostics import Label
from ....dsl.errors import NncError, error
from ....dsl.record import dataclass
from ....dsl.source import Span
from ...types.sizes import symbol
from ...types.tensors import FLOATS, TensorType
from .. import calls
from ..context import Context
from ..home import AVERAGE, Declared
from ..operations import elementwise
from ..scope import Instance, Scope
from ..shapes import broadcast_to
from ..signatures import Default
from ..stacked import member
from ..statements import store
from ..values import Bound, Builtin, Defined, Given, Group, Partial, Tensor, Value, kind
from ..variables import declare, meet

_COUNT = "train/accumulated"  # examples whose gradients are added up


@dataclass(frozen=True, slots=True)
class Goal:
    """A loss to be made small, over parameters that learn from it, each group with an optimizer of its own. `span` is
    the statement."""

    name: str
    loss: Tensor
    over: tuple[tuple[Group, ast.Expr, Span], ...]  # parameters, their optimizer, and where it is set
    span: Span

    @property
    def trained(self) -> dict[str, Tensor]:
        """The parameters that learn from this loss, by path."""
        return {p: t for group, _, _ in self.over for p, t in group.members.items()}


def gradients(cx: Context, loss: Tensor, xs: Mapping[str, Tensor], train: ast.Train) -> dict[str, Tensor]:
    if not xs:
        return {}
    for path, t in xs.items():
        if t.dtype not in FLOATS:
            what = f"`{path}` is {t.type}, and only floats learn from a gradient"
            help = "a `state` may be of whole numbers, and `freeze` leaves parameters as they are"
            raise error("E0401", what, cx.program.variables[path].span, help=help)
    g = cx.builder.emit("grad", loss.node, *(t.node for t in xs.values()), span=train.span)
    return {n: Tensor(cx.builder.emit("item", g, index=k, span=train.span), cx.builder) for k, n in enumerate(xs)}


def optimize(
    cx: Context,
    scope: Scope,
    goals: Sequence[Goal],
    deferred: Mapping[str, ast.Assign],
    after: Callable[[], None],
    train: ast.Train,
) -> None:
    """Updates of what is trained, as the settings `clip`, `accumulate` and `average` say. All gradients are taken, and
    all optimizers read, at the values before the step; `after` says what is assigned behind it."""
    assert cx.program.spec is not None
    for goal in goals:
        for _, e, _ in goal.over:
            with cx.recovering():
                _optimizer(cx, scope, e)  # what is none is told first
        with cx.recovering():
            _check_reached(cx, goal, train)
    found: dict[str, Tensor] = {}
    for goal in goals:
        found |= {p: meet(cx, g, "mean", train.span) for p, g in gradients(cx, goal.loss, goal.trained, train).items()}
    due = None
    if cx.program.spec.accumulate > 1 and found:
        with cx.recovering():
            found, due = _accumulate(cx, found, cx.program.spec.accumulate, deferred["accumulate"].value.span)
    before = cx.updates.keys() | {_COUNT}
    for goal in goals:
        group = Group({p: found[p] for p in goal.trained}, train.model)
        if "clip" in deferred and group.members:
            with cx.recovering():
                group = _applied(cx, scope, "clip", deferred["clip"].value, (group,), "global_norm(1.0)")
        for members, e, span in goal.over:
            with cx.recovering():
                _steps(cx, scope, members, group, e, span)
    after()
    if "average" in deferred and found:
        with cx.recovering():
            _average(cx, scope, deferred["average"].value)
    if due is not None:
        _only_when(cx, due, [p for p in cx.updates if p not in before])


def _steps(cx: Context, scope: Scope, members: Group, gradients: Group, e: ast.Expr, span: Span) -> None:
    """What an optimizer does to each of its parameters."""
    for dtype in dict.fromkeys(p.dtype for p in members.members.values()):
        with cx.reading(dtype):
            optimizer = _optimizer(cx, scope, e)
            for path in (n for n, p in members.members.items() if p.dtype == dtype):
                with member(cx, path, span) as own:
                    _step(cx, optimizer, path, own(gradients.members[path]), e, span)


def _check_reached(cx: Context, goal: Goal, train: ast.Train) -> None:
    """Refuse a loss that is computed from none of the parameters that it trains."""
    if cx.stood_in or cx.is_unknown(train.model):
        return  # not all is known that it is computed from
    wanted = {t.node for t in goal.trained.values()}
    seen, waiting = {goal.loss.node}, [goal.loss.node]
    while waiting and not seen & wanted:
        new = [a for a in cx.builder[waiting.pop()].args if a not in seen]
        seen.update(new)
        waiting += new
    if goal.name != "loss" and not wanted:
        raise error("E0401", f"`{goal.name}` is minimized over no parameter", goal.span)
    if wanted and not seen & wanted:
        what = "the loss depends on no parameter, so there is nothing to train"
        if goal.span != train.span:
            what = f"`{goal.name}` depends on no parameter that it is minimized over"
        raise error("E0401", what, goal.span)


def _optimizer(cx: Context, scope: Scope, e: ast.Expr) -> Bound:
    named = cx.evaluate(e.function, scope) if isinstance(e, ast.Call) else None
    if isinstance(named, Defined | Builtin) and not isinstance(getattr(named, "definition", None), ast.Optimizer):
        raise _no_optimizer(named, e)
    bound = cx.evaluate(e, scope)
    if isinstance(bound, Defined) and isinstance(bound.definition, ast.Optimizer):
        bound = calls.apply(cx, bound, Given((), {}, e.span), scope)
    if not isinstance(bound, Bound):
        raise _no_optimizer(bound, e)
    return bound


def _no_optimizer(value: Value, e: ast.Expr) -> NncError:
    return error("E0307", f"an optimizer is wanted, not {kind(value)}", e.span, help="for example `SGD(lr = 0.1)`")


def _applied(cx: Context, scope: Scope, name: str, e: ast.Expr, groups: tuple[Group, ...], example: str) -> Group:
    """A setting that is a function of groups of the parameters' shapes, and whose result is another one."""
    function = cx.as_function(e, scope)
    if not isinstance(function, Partial | Builtin | Defined):
        what = "the gradients" if len(groups) == 1 else "the average and the parameters"
        raise error(
            "E0307",
            f"`{name}` must be a function of {what}, not {kind(function)}",
            e.span,
            help=f"for example `{example}`",
        )
    result = calls.apply(cx, function, Given(groups, {}, e.span), scope)
    if not isinstance(result, Group) or result.members.keys() != groups[0].members.keys():
        what = "the gradients" if len(groups) == 1 else "the new average of each parameter"
        raise error("E0307", f"`{name}` must return {what}, not {kind(result)}", e.span)
    return result


def _step(cx: Context, bound: Bound, path: str, g: Tensor, e: ast.Expr, span: Span) -> None:
    """What the optimiser's body does to one parameter."""
    definition = bound.optimizer.definition
    inner = Scope(bound.optimizer.scope, Instance(path, optimizer=True))
    for p in definition.parameters:
        value = bound.arguments[p.name]
        if isinstance(value, Default):
            value = cx.evaluate(value.expression, inner)
        inner.bind(p.name, value, p.span)
    assert inner.instance is not None
    inner.instance.variables["p"] = path
    inner.bind("p", cx.variable(path))
    inner.bind("g", g)
    inner.bind("role", cx.program.variables[path].role)
    with cx.calling(definition.name, span):
        cx.run(definition.body, inner)  # type: ignore[arg-type]
    if path not in (cx.updates if cx.turn is None else cx.turn.updates):
        raise error(
            "E0203",
            f"the optimizer `{definition.name}` never updates `p`",
            e.span,
            "",
            Label(definition.span, "defined here"),
            help="end its body with `p := ...`",
        )


# --- accumulation ----------------------------------------------------------------------------------------------------


def _accumulate(cx: Context, found: Mapping[str, Tensor], every: int, span: Span) -> tuple[dict[str, Tensor], Tensor]:
    """The mean gradient over the examples since the last step, sum_i n_i g_i / sum_i n_i over batches of n_i examples;
    and whether this batch completes a step."""
    assert cx.program.spec is not None
    if cx.program.spec.batch_size is None:
        raise error("E0203", "`accumulate` adds up batches, but no size of the inputs counts examples", span)
    n = symbol(cx.program.spec.batch_size)
    declare(cx, Declared(_COUNT, TensorType("i64"), "train", 0, False, None, None))
    t = cx.emit("add", cx.variable("train/t"), cx.constant(1, "i64"), span=None)
    rest = cx.emit("mod", t, cx.constant(every, "i64"), span=span)
    due = cx.emit("eq", rest, cx.constant(0, "i64"), span=span)
    count = elementwise(cx, "+", cx.variable(_COUNT), n, span, (span, span))
    store(cx, _COUNT, _where(cx, due, cx.constant(0, "i64"), count), span)
    means = {}
    for path, g in found.items():
        place = f"accumulated/{path}"
        declare(cx, Declared(place, cx.program.variables[path].type, "slot", 0, False, None, span))
        more = elementwise(cx, "*", g, n, span, (span, span))
        total = elementwise(cx, "+", cx.variable(place), more, span, (span, span))
        examples = cx.emit("cast", count, span=span, dtype=g.dtype)
        means[path] = elementwise(cx, "/", total, examples, span, (span, span))
        store(cx, place, _where(cx, due, cx.constant(0, g.dtype), total), span)
    return means, due


def _where(cx: Context, due: Tensor, new: Tensor, old: Tensor) -> Tensor:
    shaped = [broadcast_to(cx, x, old.shape, None, ()) if not x.rank else x for x in (due, new)]
    return cx.emit("where", *shaped, old, span=None)


def _only_when(cx: Context, due: Tensor, paths: list[str]) -> None:
    """These updates happen in a step that is due; otherwise the variables stay."""
    leaves = {n.attrs["path"]: Tensor(n.name, cx.builder) for n in cx.builder.nodes.values() if n.op == "param"}
    for path in paths:
        cx.updates[path] = _where(cx, due, cx.updates[path], leaves[path])


# --- averages --------------------------------------------------------------------------------------------------------


def _average(cx: Context, scope: Scope, e: ast.Expr) -> None:
    """The running average of each parameter of the model, which begins as the parameter does; inference reads it."""
    for declared in cx.program.averages.values():
        declare(cx, declared)
    moved = [p for p in cx.program.averages if p in cx.updates]
    assert cx.program.model is not None
    averages = Group({p: cx.variable(AVERAGE + p) for p in moved}, cx.program.model.name)
    result = _applied(cx, scope, "average", e, (averages, averages.of({p: cx.updates[p] for p in moved})), "ema(0.999)")
    for path, value in result.members.items():
        store(cx, AVERAGE + path, value, e.span, "its new average")
