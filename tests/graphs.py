"""Graphs that tests build by hand."""

from __future__ import annotations

from typing import Any

from nnc.compiler.graph.nodes import Builder
from nnc.compiler.graph.ops import require
from nnc.compiler.graph.ops.contraction import plain
from nnc.compiler.graph.ops.op import ShapeError
from nnc.compiler.types.sizes import Dim


def einsum(b: Builder, spec: str, *args: str, **attrs: Any) -> str:
    """`einsum(b, "bi,oi->bo", x, w)`: the contraction with one letter per axis. A letter must have one size everywhere;
    raises `ShapeError` E0301 where it has two."""
    inputs, out = spec.replace(" ", "").split("->")
    extent: dict[str, Dim] = {}
    for k, (letters, a) in enumerate(zip(inputs.split(","), args, strict=True)):
        require.one_each("contract", b.type(a), "letters", letters)
        for i, n in zip(letters, b.shape(a), strict=True):
            if extent.setdefault(i, n) != n:
                raise ShapeError("E0301", f"index {i} runs over two sizes, but {extent[i]} is not {n}", (k,))
    return b.emit(
        "contract",
        *args,
        domain=tuple(extent.items()),
        maps=tuple(plain(m) for m in inputs.split(",")),
        out=plain(out),
        shape=tuple(extent[i] for i in out),
        **attrs,
    )
