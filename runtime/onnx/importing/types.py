"""Data types of ONNX, and tensors as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...call.arrays import NAMES
from ...call.column import Array
from .refusals import Refused

DTYPES = {1: "f32", 11: "f64", 6: "i32", 7: "i64", 9: "bool"}  # of TensorProto.DataType
HALVES = (10, 16)  # f16, bf16: as initialisers they are widened
_OTHERS = {
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 8: "string", 10: "float16", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip


def dtype_of(code: int) -> str:
    """The dtype of a TensorProto.DataType. Raises Refused."""
    if code not in DTYPES:
        raise unsupported(_OTHERS.get(code, f"the type {code}"))
    return DTYPES[code]


def initial_dtype(code: int) -> str:
    """The dtype that an initialiser has here: halves are widened."""
    return "f32" if code in HALVES else dtype_of(code)


def dtype_of_array(array: Array) -> str:
    if array.dtype not in NAMES or NAMES[array.dtype] not in DTYPES.values():
        raise unsupported(str(array.dtype))
    return NAMES[array.dtype]


def unsupported(name: str) -> Refused:
    return Refused(f"values of {name} are not supported: those of float, double, int32, int64 and bool are")


def tensor(proto: Any, t: Any) -> Array:
    """The numbers of a TensorProto; halves are widened. Raises Refused."""
    if t.data_location == t.EXTERNAL:
        raise Refused("its numbers are in another file, which was not asked for")
    try:
        array = np.asarray(proto.numpy_helper.to_array(t))
    except (ValueError, TypeError, OverflowError, MemoryError) as e:
        raise Refused(f"it has not the numbers that its shape {list(t.dims)} says: {str(e)[:80]}") from None
    return array.astype(np.float32) if t.data_type in HALVES else array
