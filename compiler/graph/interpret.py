"""The reference interpreter: a graph and NumPy arrays in, NumPy arrays out. Slow, obvious and the judge of all else.

Each operator's own `reference` computes it, in the dtype the graph says; sizes are bound from the shapes of what is
passed. `grad` nodes must have been written out by `differentiate`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ...dsl.errors import ArgumentError, InternalError, error
from ..types.sizes import Dim, Size, divide, substitute, symbol, symbols
from ..types.tensors import TensorType, TupleType
from .nodes import Graph, Guard, Node
from .ops import OPS
from .ops.elementwise import NUMPY

Arrays = Mapping[str, Any]
Observer = Callable[[Node, list[Any], Any], None]  # of a node, its operands and its value
Run = Callable[[Graph, Arrays, Mapping[str, int]], tuple[Any, ...]]


def evaluate(
    graph: Graph,
    inputs: Arrays | None = None,
    params: Arrays | None = None,
    sizes: Mapping[str, int] | None = None,
    observe: Observer | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs by name and new values of parameters by path. `inputs` are by the inputs' outside names, `params` by
    path; `sizes` gives those sizes that no shape tells; `observe` sees each value, which is then kept as long as
    something may read it. Raises `ArgumentError` where an array is missing or does not fit."""
    values: dict[str, Any] = dict(_leaves(graph, inputs, params))
    bound = sizes_of(graph, values, sizes or {})
    check_guards(graph.guards, bound)
    last = {a: node.name for node in graph for a in node.args}
    last |= dict.fromkeys([v for _, v in (*graph.outputs, *graph.updates)], "")
    with np.errstate(all="ignore"):
        for node in graph:
            args = [values[a] for a in node.args]
            if node.name not in values:
                values[node.name] = apply(node, args, bound)
            if observe is not None:
                observe(node, args, values[node.name])
            for read in {a for a in node.args if last[a] == node.name}:
                del values[read]
    return {k: values[v] for k, v in graph.outputs}, {k: values[v] for k, v in graph.updates}


def _leaves(graph: Graph, inputs: Arrays | None, params: Arrays | None) -> Iterator[tuple[str, np.ndarray]]:
    """The values of inputs and parameters, by node."""
    for node in graph:
        if node.op in ("input", "param"):
            key, given = (node.attrs["name"], inputs) if node.op == "input" else (node.attrs["path"], params)
            if given is None or key not in given:
                raise error("E0604", f"there is no value for {node.op} {key}", kind=ArgumentError)
            yield node.name, np.asarray(given[key], NUMPY[node.dtype])


def sizes_of(graph: Graph, values: Arrays, given: Mapping[str, int]) -> dict[str, int]:
    """The numbers behind the symbols of a graph, by the values of its leaves."""
    leaves = (n for n in graph if n.op in ("input", "param") and n.name in values)
    ports = (
        (n.attrs["name" if n.op == "input" else "path"], n.attrs["type"], np.shape(values[n.name])) for n in leaves
    )
    return bind_sizes(ports, given)


def apply(node: Node, args: list[Any], sizes: Mapping[str, int], run: Run | None = None) -> Any:
    """The value of one node, of the values of its operands; `run` gives the results of a graph inside it."""
    reference = OPS[node.op].reference
    if reference is None:
        raise error("E0901", f"{node.op} cannot be evaluated: {node.name}", node.span, kind=InternalError)
    type = _known(node.type, sizes)
    attrs = {k: _known(v, sizes) for k, v in node.attrs.items()}
    if "body" in attrs:
        attrs["run"] = run or _run
        attrs["sizes"] = sizes  # a body may speak of sizes that the shapes of its operands do not tell
    result = reference(args, attrs, type)
    if isinstance(type, TensorType):
        result = np.asarray(result)
        assert result.shape == type.shape and result.dtype == NUMPY[type.dtype], f"{node.name}: {result.dtype} {type}"
    return result


def _run(body: Graph, inputs: Arrays, sizes: Mapping[str, int]) -> tuple[np.ndarray, ...]:
    """The results of the graph inside an operator: its reference cannot import what asks it."""
    return tuple(evaluate(body, inputs, None, sizes)[0].values())


def _known(x: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute or a type with every symbol replaced by its number."""
    match x:
        case Size():
            return whole(x, sizes)
        case TensorType(dtype, shape):
            return TensorType(dtype, _known(shape, sizes))
        case TupleType(items):
            return TupleType(_known(items, sizes))
        case tuple():
            return tuple(_known(y, sizes) for y in x)
        case _:
            return x


def whole(x: Dim, sizes: Mapping[str, int]) -> int:
    """A size as a number. Raises `ArgumentError` where `sizes` does not tell it."""
    n = substitute(x, sizes)
    if not isinstance(n, int):
        missing = ", ".join(sorted(symbols(n)))
        raise error("E0601", f"size {missing} is not known", help="give it by `sizes`", kind=ArgumentError)
    return n


def bind_sizes(ports: Iterable[tuple[str, TensorType, tuple[int, ...]]], given: Mapping[str, int]) -> dict[str, int]:
    """The numbers behind the symbols of `ports`, each (name, declared type, actual shape). Sizes written as one symbol
    are read off, then sums such as 2*H + 1 are solved for the symbol left in them, then all the rest is compared.

    Raises `ArgumentError` E0601: ranks or sizes disagree."""
    bound = dict(given)
    open_: list[tuple[str, TensorType, tuple[int, ...], Dim, int]] = []
    for name, declared, shape in ports:
        if len(shape) != declared.rank:
            message = f"{name} must be {declared}, but has the shape {list(shape)}"
            raise error("E0601", message, kind=ArgumentError)
        for d, n in zip(declared.shape, shape, strict=True):
            (s,) = names if len(names := symbols(d)) == 1 else (None,)
            if s is not None and d == symbol(s):
                bound.setdefault(s, n)
            open_.append((name, declared, shape, d, n))
    for _, _, _, d, n in open_:
        _solve(substitute(d, bound), n, bound)
    for name, declared, shape, d, n in open_:
        m = substitute(d, bound)
        if m != n:
            why = f"{d} is {m}, not {n}" if isinstance(m, int) else f"{d} cannot be {n}"
            message = f"{name} must be {declared}, but has the shape {list(shape)}: {why}"
            raise error("E0601", message, kind=ArgumentError)
    return bound


def _solve(d: Dim, n: int, bound: dict[str, int]) -> None:
    """Bind the symbol s where d is a*s + b and equals n."""
    names = symbols(d)
    if len(names) != 1:
        return
    (s,) = names
    at0 = substitute(d, {s: 0})
    slope = d - at0
    a, rest = divide(slope, symbol(s))
    if isinstance(a, int) and isinstance(at0, int) and rest == 0 and (n - at0) % a == 0 and (n - at0) // a >= 0:
        bound[s] = (n - at0) // a


RELATIONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def check_guards(guards: Iterable[Guard], sizes: Mapping[str, int]) -> None:
    """Raises `ArgumentError` E0606 at the first that does not hold."""
    for g in guards:
        if not any(RELATIONS[r.op](whole(r.left, sizes), whole(r.right, sizes)) for r in g.relations):
            values = {f"{n} is {whole(n, sizes)}": None for r in g.relations for n in (r.left, r.right)}
            raise error("E0606", f"{g.message}, but {' and '.join(values)}", g.span, kind=ArgumentError)
