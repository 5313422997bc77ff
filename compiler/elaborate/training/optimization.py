"""One optimiser step: gradients, accumulated over batches, clipped, given to the optimiser; then the running average.

In: the loss and the trainable parameters of a train block. Out: updates of parameters, optimiser slots and averages in
the context. Whether a batch is the last of its step is known at run time only, so with `accumulate` each step is
computed and taken over or not, without a branch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....dsl import ast
from ....dsl.diagnostics import Label
from ....dsl.errors import NncError, error
from ....dsl.source import Span
from ...types.sizes import symbol
from ...types.tensors import TensorType
from .. import calls
from ..context import AVERAGE, Context, Declared
from ..operations import elementwise
from ..scope import Instance, Scope
from ..shapes import broadcast_to
from ..signatures import Default
from ..statements import store
from ..values import Bound, Builtin, Defined, Given, Group, Partial, Tensor, Value, kind
from ..variables import declare

_COUNT = "train/accumulated"  # examples whose gradients are added up


def _reaches(cx: Context, loss: Tensor, trainable: Group) -> bool:
    """Whether any parameter is among what the loss is computed from."""
    wanted = {t.node for t in trainable.members.values()}
    seen, waiting = {loss.node}, [loss.node]
    while waiting:
        node = waiting.pop()
        if node in wanted:
            return True
        new = [a for a in cx.builder[node].args if a not in seen]
        seen.update(new)
        waiting += new
    return False


def gradients(cx: Context, loss: Tensor, xs: Mapping[str, Tensor], train: ast.Train) -> dict[str, Tensor]:
    if not xs:
        return {}
    g = cx.builder.emit("grad", loss.node, *(t.node for t in xs.values()), span=train.span)
    return {n: Tensor(cx.builder.emit("item", g, index=k, span=train.span), cx.builder) for k, n in enumerate(xs)}


def optimize(
    cx: Context,
    scope: Scope,
    trainable: Group,
    loss: Tensor,
    deferred: Mapping[str, ast.Assign],
    train: ast.Train,
) -> None:
    """Updates of the trainable parameters, as the settings `optimizer`, `clip`, `accumulate` and `average` say."""
    assert cx.program.spec is not None
    bound = _optimizer(cx, scope, deferred["optimizer"])
    if trainable.members and not _reaches(cx, loss, trainable):
        raise error("E0401", "the loss depends on no parameter, so there is nothing to train", train.span)
    group = Group(gradients(cx, loss, trainable.members, train))
    due = None
    if cx.program.spec.accumulate > 1 and group.members:
        group, due = _accumulate(cx, group, cx.program.spec.accumulate, deferred["accumulate"].value.span)
    if "clip" in deferred and group.members:
        group = _applied(cx, scope, "clip", deferred["clip"].value, (group,), "global_norm(1.0)")
    before = cx.updates.keys() | {_COUNT}
    for path, g in group.members.items():
        _step(cx, bound, path, g, deferred["optimizer"])
    if "average" in deferred and group.members:
        _average(cx, scope, trainable, deferred["average"].value)
    if due is not None:
        _only_when(cx, due, [p for p in cx.updates if p not in before])


def _optimizer(cx: Context, scope: Scope, item: ast.Assign) -> Bound:
    named = cx.evaluate(item.value.function, scope) if isinstance(item.value, ast.Call) else None
    if isinstance(named, Defined | Builtin) and not isinstance(getattr(named, "definition", None), ast.Optimizer):
        raise _no_optimizer(named, item)
    bound = cx.evaluate(item.value, scope)
    if isinstance(bound, Defined) and isinstance(bound.definition, ast.Optimizer):
        bound = calls.apply(cx, bound, Given((), {}, item.value.span), scope)
    if not isinstance(bound, Bound):
        raise _no_optimizer(bound, item)
    return bound


def _no_optimizer(value: Value, item: ast.Assign) -> NncError:
    what = f"`optimizer` must be an optimizer, not {kind(value)}"
    return error("E0307", what, item.value.span, help="for example `SGD(lr = 0.1)`")


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


def _step(cx: Context, bound: Bound, path: str, g: Tensor, item: ast.Assign) -> None:
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
    with cx.calling(definition.name, item.span):
        cx.run(definition.body, inner)  # type: ignore[arg-type]
    if path not in cx.updates:
        raise error(
            "E0203",
            f"the optimizer `{definition.name}` never updates `p`",
            item.value.span,
            "",
            Label(definition.span, "defined here"),
            help="end its body with `p := ...`",
        )


# --- accumulation ----------------------------------------------------------------------------------------------------


def _accumulate(cx: Context, group: Group, every: int, span: Span) -> tuple[Group, Tensor]:
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
    examples = cx.emit("cast", count, span=span, dtype=cx.real)
    means = {}
    for path, g in group.members.items():
        place = f"accumulated/{path}"
        declare(cx, Declared(place, TensorType(g.dtype, g.shape), "slot", 0, False, None, span))
        more = elementwise(cx, "*", g, n, span, (span, span))
        total = elementwise(cx, "+", cx.variable(place), more, span, (span, span))
        means[path] = elementwise(cx, "/", total, examples, span, (span, span))
        store(cx, place, _where(cx, due, cx.constant(0, g.dtype), total), span)
    return Group(means), due


def _where(cx: Context, due: Tensor, new: Tensor, old: Tensor) -> Tensor:
    shaped = [broadcast_to(cx, x, old.shape, None, ()) if not x.rank else x for x in (due, new)]
    return cx.emit("where", *shaped, old, span=None)


def _only_when(cx: Context, due: Tensor, paths: list[str]) -> None:
    """These updates happen in a step that is due; otherwise the variables stay."""
    leaves = {n.attrs["path"]: Tensor(n.name, cx.builder) for n in cx.builder.nodes.values() if n.op == "param"}
    for path in paths:
        cx.updates[path] = _where(cx, due, cx.updates[path], leaves[path])


# --- averages --------------------------------------------------------------------------------------------------------


def _average(cx: Context, scope: Scope, trainable: Group, e: ast.Expr) -> None:
    """The running average of each parameter, which begins as the parameter does; inference reads it."""
    for path in trainable.members:
        declare(cx, cx.program.averages[path])
    averages = Group({p: cx.variable(AVERAGE + p) for p in trainable.members})
    updated = Group({p: cx.updates[p] for p in trainable.members})
    result = _applied(cx, scope, "average", e, (averages, updated), "ema(0.999)")
    for path, value in result.members.items():
        store(cx, AVERAGE + path, value, e.span, "its new average")
