"""User values into the arrays an entry point reads.

In: whatever NumPy understands. Out: C-contiguous, native-endian, element-aligned arrays of the declared dtype, and the
sizes that the symbols of the signature stand for. A value that would lose its meaning on the way (a float to an int, a
finite number to infinity, an int out of range) is refused; rounding f64 to f32 is not. Shapes are checked before
anything is copied, so a refused argument costs nothing.

Codes: E0601 shape, E0602 dtype, E0603 value out of range, E0605 too large, E0606 sizes that must agree.
"""

from __future__ import annotations

import mmap
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ctypes import addressof, c_char
from functools import partial
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from ...compiler.manifest import Port
from ...compiler.types.sizes import Dim, Size, Symbol, substitute, symbols
from ...compiler.types.tensors import TensorType
from ...dsl.errors import ArgumentTypeError, NncError, ResourceError, error
from ...dsl.record import dataclass
from .column import Array, Column, Rows, memory_limit
from .foreign import Unfit, as_numpy, is_text, type_name
from .messages import argument_error, human

NUMPY: Mapping[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "i32": np.dtype(np.int32), "i64": np.dtype(np.int64),
    "bool": np.dtype(np.bool_), "i8": np.dtype(np.int8), "i16": np.dtype(np.int16),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in NUMPY.items()}
MAX_AXES = 32
ALIGNMENT = 64  # of everything we allocate; user arrays need only their elements aligned
BAD_DATA = "the data have it, in the row that is named (counted from 0): drop or fill such rows"
BATCHES = "what gives batch after batch is for `fit` and `evaluate`, as their only argument"
_CLASSES = "`numpy.unique(.., return_inverse=True)` numbers them; so does `fit` of a frame with the target in it"
_CHANNELS = (1, 3, 4)  # of a picture: grey, colour, colour with transparency
_LEAST_SIDE = 8  # of one, in pixels
_PAGE = 1 << 21  # bytes of a large page: a processor finds what lies in such without a walk through tables
_APART = 9  # lines of a cache between arrays: equal places of equal arrays then compete for different ones
_SOME = 1 << 16  # values that stay near
_SMALL = 1 << 26  # bytes that are allocated without asking how much memory there is


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port, taken apart once so that a call is quick: an axis is an int, a symbol's name, or a composite size."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[int | str | Size, ...]
    type: TensorType


def wanted(port: Port) -> Wanted:
    return Wanted(port.name, NUMPY[port.dtype], tuple(map(_axis, port.shape)), port.type)


def _axis(dim: Dim) -> int | str | Size:
    if isinstance(dim, Size) and len(dim.terms) == 1:
        (monomial, coefficient) = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0].name
    return dim


def bind(entry: str, wants: Sequence[Wanted], values: Sequence[Any]) -> tuple[list[Any], dict[str, int]]:
    """The arrays to pass, in order, and the value of every symbol their shapes determine. A column that stays on disk
    passes as one, whose rows are converted when they are read."""
    arrays: list[Rows] = []
    sizes: dict[str, int] = {}
    composite: list[tuple[Wanted, int, Size, int]] = []
    for want, value in zip(wants, values, strict=True):
        array: Any = value if type(value) is np.ndarray or type(value) is Column else as_array(value, entry, want)
        axes = want.axes
        same = array.dtype is want.dtype or array.dtype == want.dtype
        if not same:
            _check_kind(array, entry, want)
        if array.ndim != len(axes):
            raise shape_error(entry, want, array, _rank_help(want, array))
        for position, n in enumerate(array.shape):
            axis = axes[position]
            if type(axis) is str:
                known = sizes.setdefault(axis, n)
                if known != n:
                    raise _disagreement(entry, want, array, axis, known, wants)
            elif type(axis) is int:
                if n != axis:
                    raise shape_error(entry, want, array, _axis_help(want, array, position))
            else:
                composite.append((want, position, axis, n))  # type: ignore[arg-type]
        if len(axes) == 4 and array.shape[3] in _CHANNELS:
            _warn_of_channels(entry, want, array)
        if type(array) is Column:
            array = array if same else array.then(want.dtype, partial(convert, entry=entry, want=want))
        elif not (same and ((flags := array.flags).carray or (flags.c_contiguous and flags.aligned))):
            array = convert(array, entry, want)
        arrays.append(array)
    for want, position, size, n in composite:
        _settle(entry, want, position, size, n, sizes)
    return arrays, sizes


def _settle(entry: str, want: Wanted, position: int, size: Size, n: int, sizes: dict[str, int]) -> None:
    """Check a composite size, or solve it when it is `k*S + c` and nothing else determines S (E0606)."""
    missing = sorted(symbols(size) - sizes.keys())
    if len(missing) == 1:
        linear = {m: c for m, c in size.terms}
        k = linear.pop((Symbol(missing[0]),), 0)
        rest = substitute(Size(tuple(linear.items())), sizes) if linear else 0
        if isinstance(rest, int) and k > 0 and n >= rest and (n - rest) % k == 0:
            sizes[missing[0]] = (n - rest) // k
            return
    try:
        expected = substitute(size, sizes)
    except ZeroDivisionError:
        expected = -1
    if expected != n:
        got = f"axis {position} of `{want.name}` of {entry} is {n}"
        known = ", ".join(f"{s} = {sizes[s]}" for s in sorted(symbols(size)) if s in sizes)
        raise argument_error("E0606", f"{got}, but must be {size}" + (f" with {known}" if known else ""))


def as_array(value: Any, entry: str, want: Wanted) -> Array:
    """The value as NumPy sees it: lists, scalars, tensors, columns and frames (see `foreign`)."""
    ma = sys.modules.get("numpy.ma")  # whoever has such an array has loaded it, which takes 10 ms
    if ma is not None and isinstance(value, ma.MaskedArray) and ma.is_masked(value):
        raise argument_error(
            "E0602",
            f"`{want.name}` of {entry} is a masked array with masked values",
            help="fill or drop the masked values first",
            kind=ArgumentTypeError,
        )
    try:
        array = as_numpy(value)
    except MemoryError:
        raise
    except Unfit as e:
        raise _no_array(e.got, entry, want, e.help) from None
    except Exception as e:  # whatever a foreign __array__ raises
        if isinstance(e, ValueError) and isinstance(value, list | tuple):
            raise argument_error("E0601", f"`{want.name}` of {entry} wants {want.type}, got a ragged list") from e
        raise _no_array(type_name(value), entry, want, _help(value) or str(e).partition("\n")[0]) from e
    if isinstance(value, str) or (array.dtype == object and not isinstance(value, np.ndarray)):
        if is_text(array) and array.ndim and array.size:
            raise _no_array("texts", entry, want, _CLASSES)
        raise _no_array(type_name(value), entry, want, _help(value))
    if array.size == 0 and isinstance(value, list | tuple):
        array = array.astype(want.dtype)  # an empty list has no dtype of its own
    return array


def is_stream(value: Any) -> bool:
    """Whether something gives values one after another, and is no array."""
    known = isinstance(value, list | tuple | str | bytes | Mapping)
    return isinstance(value, Iterable) and not known and not any(hasattr(value, a) for a in ("__array__", "__dlpack__"))


def _no_array(got: str, entry: str, want: Wanted, help: str | None) -> NncError:
    return argument_error("E0602", f"`{want.name}` of {entry} wants {want.type}, got {got}", help, ArgumentTypeError)


def _help(value: Any) -> str | None:
    """What helps with a value that is no array."""
    if hasattr(value, "columns"):
        return "some of its columns are no numbers: pass those that are, and the target by itself"
    if is_stream(value):
        return f"`list(..)` or `numpy.stack(..)` of it is an array; {BATCHES}"
    return "`numpy.load` reads an array from a file" if isinstance(value, str) else None


def _check_kind(array: Array, entry: str, want: Wanted) -> None:
    """Numbers only, and no float where an int or a bool is wanted (E0602)."""
    kind = array.dtype.kind
    if kind in "iub" or (kind == "f" and want.dtype.kind == "f"):
        return
    help = f"round it and use .astype({want.dtype.name}) if that is meant" if kind == "f" else None
    if kind == "f" and array.ndim == len(want.axes) + 1:
        help = _one_hot(want)
    raise argument_error(
        "E0602", f"`{want.name}` of {entry} wants {want.type}, got {describe(array)}", help, ArgumentTypeError
    )


def convert(array: Array, entry: str, want: Wanted) -> Array:
    """A contiguous copy in the wanted dtype, or the array itself when it is one already.

    Allowed: int and bool to float, float to float of another width, int to int in range, bool to int, 0 and 1 to bool.
    """
    source, target = array.dtype, want.dtype
    check_nbytes(array.shape, target, f"`{want.name}` of {entry}")
    if target.kind in "ib" and source.kind != "b" and array.size:
        low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        least, most = int(array.min()), int(array.max())
        if least < low or most > high:
            raise argument_error(
                "E0603",
                f"`{want.name}` of {entry} wants {want.type}, got {describe(array)} with the "
                f"value {least if least < low else most}",
            )
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.require(array, target, ["C", "ALIGNED"])
    if source.kind == "f" and source.itemsize > target.itemsize:
        lost = np.isinf(result) & np.isfinite(array)
        if lost.any():
            first = float(array[lost].flat[0]) if array.ndim else float(array)
            raise argument_error(
                "E0603",
                f"`{want.name}` of {entry} wants {want.type}, got {describe(array)} with "
                f"the value {first:g}, which f32 cannot hold",
            )
    return result


def describe(array: Rows) -> str:
    """`f32[2, 3]`; dtypes that the language does not have keep NumPy's name."""
    native = array.dtype.newbyteorder("=")
    name = NAMES.get(native, str(native))
    if not array.dtype.isnative:
        name = f"byte-swapped {name}"
    return name + (f"[{', '.join(map(str, array.shape))}]" if array.ndim else "")


def shape_error(entry: str, want: Wanted, array: Rows, help: str | None) -> NncError:
    return argument_error("E0601", f"`{want.name}` of {entry} wants {want.type}, got {describe(array)}", help)


def _rank_help(want: Wanted, array: Array) -> str | None:
    if array.ndim == len(want.axes) - 1:
        if want.axes[-1] == 1 and array.shape[1:] == want.axes[1:-1]:
            return f"each example's number as a row of its own is `{want.name}[..., None]`"
        if isinstance(want.axes[0], str):
            return f"one example alone is `{want.name}[None]`"
    if array.ndim == len(want.axes) + 1:
        if array.shape[-1] == 1:
            return f"without the last axis it is `{want.name}[..., 0]`"
        if want.dtype.kind == "i":
            return _one_hot(want)
    return f"{array.ndim} axes, not {len(want.axes)}"


def _axis_help(want: Wanted, array: Rows, position: int) -> str:
    """What differs; of pictures [B, H, W, C] how they are turned."""
    told = f"axis {position} is {array.shape[position]}, not {want.axes[position]}"
    if position == 1 and len(want.axes) == 4 and array.shape[3] == want.axes[1]:
        return f"{told}; pictures stand as [B, C, H, W]: `{want.name}.transpose(0, 3, 1, 2)`"
    return told


def _warn_of_channels(entry: str, want: Wanted, array: Rows) -> None:
    """Pictures [B, H, W, C] fit where channels, height and width are free, and are read as others."""
    if all(type(axis) is str for axis in want.axes) and min(array.shape[1:3]) >= _LEAST_SIDE:
        warnings.warn(
            f"`{want.name}` of {entry} is {describe(array)}, read as {want.type} with {array.shape[1]} channels; "
            f"pictures whose channels are last are `{want.name}.transpose(0, 3, 1, 2)`",
            stacklevel=2,
        )


def _one_hot(want: Wanted) -> str:
    return f"if its rows are one-hot, `{want.name}.argmax(-1)` has the class of each"


def _disagreement(entry: str, want: Wanted, array: Array, axis: str, known: int, wants: Sequence[Wanted]) -> NncError:
    first = next(w.name for w in wants if axis in w.axes)  # its first use is what bound it
    if first == want.name:
        return shape_error(entry, want, array, f"{axis} is one size")
    return shape_error(entry, want, array, f"{axis} is {known} in `{first}`")


def is_finite(array: Array) -> bool:
    """Whether all values of an array without gaps are finite; asked of some at a time, for the answers take memory."""
    flat = array.reshape(-1)
    return all(np.isfinite(flat[k : k + _SOME]).all() for k in range(0, flat.size, _SOME))


def not_finite(array: Array, rows: Array | None = None) -> str | None:
    """How an array fails to be finite: `has 3 values that are not finite, first nan at [0, 2]`. `rows` says which row
    each is in what the user passed; then the first of those is named."""
    if array.dtype.kind != "f":
        return None
    mask = ~np.isfinite(array)
    count = int(mask.sum())
    if not count:
        return None
    if array.ndim == 0:
        return f"is {float(array)}"
    found = np.argwhere(mask)
    row = passed_rows(found[:, 0], len(array), rows)
    first = int(np.argmin(row))
    value = float(array[tuple(found[first])])
    where = [int(row[first]), *map(int, found[first, 1:])]
    plural = "a value that is" if count == 1 else f"{count} values that are"
    return f"has {plural} not finite, first {value} at {where}"


def passed_rows(at: Array, length: int, rows: Array | None) -> Array:
    """Rows `at` of an array of `length`, as rows of what the user passed: example k was number `rows[k]` there. An
    array may have several rows an example; one that does not go by examples keeps its rows."""
    if rows is None or not len(rows) or length % len(rows):
        return at
    each = length // len(rows)
    passed: Array = rows[at // each] * each + at % each
    return passed


# --- memory -----------------------------------------------------------------------------------------------------------


def nbytes(shape: Iterable[int], dtype: np.dtype[Any]) -> int:
    """Bytes as a Python int, which does not overflow."""
    return prod(map(int, shape)) * dtype.itemsize


def is_shape(shape: Sequence[Any], itemsize: int) -> bool:
    """Whether an array can have this shape: whole numbers from 0, at most 32 of them, and bytes that can be counted."""
    if len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        return False
    return bool(prod(n or 1 for n in shape) * itemsize < 2**63)


def check_bytes(needed: int, what: str) -> None:
    """Refuse what cannot fit before anything is allocated (E0605)."""
    if needed > _SMALL and needed > (limit := memory_limit()):
        raise error("E0605", f"{what} needs {human(needed)}, but this machine has {human(limit)}", kind=ResourceError)


def check_nbytes(shape: Sequence[int], dtype: np.dtype[Any], what: str) -> None:
    check_bytes(nbytes(shape, dtype), f"{what} of {NAMES.get(dtype, dtype)}[{', '.join(map(str, shape))}]")


def aligned(shape: Sequence[int], dtype: np.dtype[Any], what: str) -> Array:
    """Zeros, C-contiguous, 64-byte aligned."""
    check_nbytes(shape, dtype, what)
    return aligned_bytes(nbytes(shape, dtype), what).view(dtype).reshape(tuple(shape))


def aligned_arrays(wanted: Iterable[tuple[Sequence[int], np.dtype[Any]]], what: str) -> list[Array]:
    """Arrays as `aligned` makes them, one after the other in one block of memory, so that small ones share pages."""
    shapes = list(wanted)
    ends = list(accumulate((-(-nbytes(*each) // ALIGNMENT) + _APART) * ALIGNMENT for each in shapes))
    block = aligned_bytes(ends[-1] if ends else 0, what)
    return [
        block[end : end + nbytes(shape, dtype)].view(dtype).reshape(tuple(shape))
        for end, (shape, dtype) in zip([0, *ends], shapes, strict=False)
    ]


def aligned_bytes(n: int, what: str) -> Array:
    """`n` zero bytes, 64-byte aligned; many of them in large pages, where the system has such."""
    check_bytes(n, what)
    try:
        if sys.platform == "linux" and n >= _PAGE // 2:
            pages = mmap.mmap(-1, (-(-n // _PAGE) + 1) * _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(OSError):  # a system without them
                pages.madvise(mmap.MADV_HUGEPAGE)
            raw, alignment = np.frombuffer(pages, np.uint8), _PAGE
        else:
            raw, alignment = np.zeros(n + ALIGNMENT, np.uint8), ALIGNMENT
    except (MemoryError, OSError) as e:
        raise error("E0605", f"{what} needs {human(n)}, which the system refused", kind=ResourceError) from e
    start = -raw.ctypes.data % alignment
    return raw[start : start + n]


def address_of(array: Array) -> int:
    """Where the data is. Five times quicker than `array.ctypes.data` for the arrays that are met most."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # read-only, empty
        return array.ctypes.data
