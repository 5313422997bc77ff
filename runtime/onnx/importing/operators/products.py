"""Products: matrices, dense layers, and sums over named axes."""

from __future__ import annotations

import numpy as np

from .....compiler.types.tensors import FLOATS
from ..node import Node, operator
from ..refusals import Refused
from ..values import Value, known, number


def is_weight(v: Value) -> bool:
    """Whether a value is an array that was learned, of more numbers than one or not."""
    return v.known is not None and bool(v.origin) and v.dtype in FLOATS and not v.name


@operator("MatMul")
def matmul(n: Node) -> Value:
    a, b = n.input(0), n.input(1)
    if is_weight(b) and b.rank == 2 and b.known is not None and a.known is None and a.rank:
        return n.text.layer(a, n.label(b), f"Dense({b.shape[1]}, bias = false)", {"W": np.ascontiguousarray(b.known.T)})
    if a.dtype not in FLOATS or min(a.rank, b.rank) < 3 or a.shape[:-2] == b.shape[:-2]:
        return n.emit("{0} @ {1}", a, b)
    rank = max(a.rank, b.rank)
    return n.emit("{0} @ {1}", *(v if v.rank in (2, rank) else n.widened(v, rank) for v in (a, b)))


@operator("Gemm")
def gemm(n: Node) -> Value:
    """alpha a b + beta c; where b and c are learned it is a dense layer."""
    a, b = n.input(0), n.input(1)
    alpha, beta = n.attribute("alpha", 1.0), n.attribute("beta", 1.0)
    if n.attribute("transA", 0):
        a = n.emit("{0}.T", a) if a.known is None else known(a.known.T, a.dtype, a.origin)
    c = n.input(2) if n.has(2) else None
    out = b.shape[not n.attribute("transB", 0)]
    plain = c is None or (is_weight(c) and c.known is not None and c.known.size == out and c.shape[-1:] == (out,))
    if is_weight(b) and plain and a.known is None and b.known is not None:
        w = b.known if n.attribute("transB", 0) else b.known.T
        arrays = {"W": np.ascontiguousarray(w * w.dtype.type(alpha))}
        if c is not None and c.known is not None:
            arrays["b"] = c.known.reshape(-1) * c.known.dtype.type(beta)
        return n.text.layer(a, n.label(b), f"Dense({out}{'' if c is not None else ', bias = false'})", arrays)
    y = n.emit("{0} @ {1}.T" if n.attribute("transB", 0) else "{0} @ {1}", a, b)
    if alpha != 1:
        y = n.emit(f"{number(alpha, y.dtype)} * {{0}}" if y.dtype in FLOATS else f"{int(alpha)} * {{0}}", y)
    if c is not None:
        if beta != 1:
            c = n.emit(f"{number(beta, c.dtype)} * {{0}}", c)
        y = n.emit("{0} + {1}", *n.meet(y, c))
    return y


@operator("Einsum")
def einsum(n: Node) -> Value:
    """Index notation with the letters of the equation."""
    equation = str(n.needed("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    values = [n.input(k) for k in range(len(terms))]
    spread = max(
        (v.rank - len(t.replace("...", "")) for t, v in zip(terms, values, strict=True) if "..." in t), default=0
    )
    letters = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    more = "".join(letters[:spread])
    if not arrow:
        counted = left.replace("...", "").replace(",", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(counted) if counted.count(c) == 1))
    read = []
    for t, v in zip(terms, values, strict=True):
        own = v.rank - len(t.replace("...", ""))
        if "..." in t and own != spread:
            raise Refused("the axes of `...` are not as many in each operand")
        read.append(t.replace("...", more))
    made = right.replace("...", more)
    bound = sorted({c for t in read for c in t} - set(made))
    names = {c: f"i_{c.lower()}{'' if c.islower() else '2'}" for t in [*read, made] for c in t}
    factors = " * ".join(f"{{{k}}}[{', '.join(names[c] for c in t)}]" if t else f"{{{k}}}" for k, t in enumerate(read))
    if not names:
        return n.emit(factors, *values)
    body = f"sum[{', '.join(names[c] for c in bound)}]({factors})" if bound else factors
    (y,) = n.emit_whole(f"{{r0}}[{', '.join(names[c] for c in made)}] = {body}", *values)
    return y
