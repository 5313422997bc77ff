"""Words of 64 bits without a sign, as programs have them that draw by chance: converted from i64 and back, and shifted
in between. The language has i64 alone, whose bits they are; anything else that reads one is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..node import Node
from ..refusals import Refused
from ..values import Value, known

_I64, _U64 = 7, 13  # of TensorProto.DataType


def of_unsigned(n: Node) -> Value | None:
    """What a node makes that gives or reads such words; None for any other node."""
    given = any(v is not None and v.unsigned for v in n.inputs)
    array = n.attributes.get("value")
    if n.op == "Constant" and isinstance(array, np.ndarray) and array.dtype == np.uint64:
        return replace(known(array.astype(np.int64), "i64"), unsigned=True)
    if n.op == "Cast" and n.attributes.get("to") == _U64 and n.x.dtype == "i64":
        return replace(n.x, unsigned=True)
    if n.op == "Cast" and given and n.attributes.get("to") == _I64:
        return replace(n.x, unsigned=False)
    if n.op == "BitShift" and given and n.attributes.get("direction") == "RIGHT":
        by = n.integers(1, "by how much it shifts")
        if len(by) == 1 and 0 < by[0] < 64:
            y = n.emit(f"bit_and(shift_right({{0}}, {by[0]}), {2 ** (64 - by[0]) - 1})", n.x)
            return replace(y, unsigned=True)
    if given:
        raise Refused("words without a sign are only converted from and to int64 and shifted to the right")
    return None
