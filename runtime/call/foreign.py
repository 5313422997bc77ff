"""Values of other libraries: tensors, columns and frames as NumPy arrays, and arrays as their tensors.

In: tensors of PyTorch and JAX, and whatever else has `__dlpack__`; columns and frames of pandas, polars and Arrow. Out:
arrays that share the memory, where NumPy can have it as it lies. Values are known by what they can do, and libraries
by the modules of their types, so that none is imported that the program does not use already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...dsl.errors import ArgumentTypeError
from ..extras import optional
from .column import Array
from .messages import argument_error

_CPU = (1, 3, 11)  # kinds of device in DLPack whose memory the processor reads: its own, and pinned for CUDA and ROCm
_NARROW = ("bfloat16", "float8")  # floats of tensors that NumPy does not have
_FILL = "fill or drop what is missing first"


class Unfit(Exception):
    """A value that is no array of numbers: what was got, and what helps."""

    def __init__(self, got: str, help: str | None = None):
        super().__init__(got)
        self.got, self.help = got, help


def type_name(value: Any) -> str:
    """`torch.Tensor`; what is built in has no module."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def as_numpy(value: Any) -> Array:
    """A value as NumPy has it. bfloat16 and float8 are widened to f32, what records gradients is taken by its values.
    Raises `Unfit`, or what a foreign `__array__` raises."""
    if is_frame(value):
        return _matrix(value)
    if _is_column(value):
        return column(value)
    return _tensor(value) if hasattr(value, "__dlpack__") or hasattr(value, "detach") else np.asarray(value)


def view(value: Any) -> Any:
    """The array in whose memory a tensor lies; any other value as it is, to be judged by who wants an array."""
    if type(value) is np.ndarray or not hasattr(value, "__dlpack__") or _is_column(value):
        return value
    try:
        array = _tensor(value)
    except Exception:  # whatever a foreign `__array__` raises
        return value
    return array if str(getattr(value, "dtype", array.dtype)).endswith(array.dtype.name) else value


def _tensor(value: Any) -> Array:
    if callable(detach := getattr(value, "detach", None)):  # of PyTorch: it may record gradients
        value = detach()
        _check_device(value)
        if any(name in str(value.dtype) for name in _NARROW):
            value = value.float()
    else:
        _check_device(value)
    array = np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    return array.astype(np.float32) if array.dtype.name.startswith(_NARROW) else array


def _check_device(value: Any) -> None:
    """The processor can read it (`Unfit`)."""
    ask = getattr(value, "__dlpack_device__", None)
    try:
        here = ask is None or ask()[0] in _CPU
    except (ValueError, RuntimeError, BufferError):  # a kind that DLPack does not know
        here = False
    if not here:
        help = "`.cpu()` of it is a copy in memory" if hasattr(value, "cpu") else "copy it to the processor's memory"
        raise Unfit(f"a {type_name(value)} on the device {getattr(value, 'device', 'that it is on')}", help)


# --- columns and frames -----------------------------------------------------------------------------------------------


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def is_frame(value: Any) -> bool:
    """Whether it has columns by name: a frame of pandas or polars, a table or a record batch of Arrow."""
    return _library(value) in _COLUMNS and type(value).__name__ in ("DataFrame", "LazyFrame", "Table", "RecordBatch")


def _is_column(value: Any) -> bool:
    return _library(value) in _COLUMNS and (hasattr(value, "null_count") or hasattr(value, "isna"))


def columns(frame: Any) -> dict[str, Any]:
    """The columns by name, as the library has them. Raises `Unfit` where two have one name."""
    library = _library(frame)
    if type(frame).__name__ == "LazyFrame":
        raise Unfit(f"a {type_name(frame)}", "`.collect()` of it is a frame")
    if library == "pandas":
        names = [str(n) for n in frame.columns]
        found = [frame.iloc[:, k] for k in range(len(names))]
    elif library == "polars":
        names, found = frame.columns, frame.get_columns()
    else:
        names, found = frame.schema.names, frame.columns
    if len(set(names)) < len(names):
        raise Unfit(f"a {type_name(frame)} with two columns `{next(n for n in names if names.count(n) > 1)}`")
    return dict(zip(names, found, strict=True))


def column(value: Any) -> Array:
    """A column of pandas, polars or Arrow; lists of one length in it are rows. Raises `Unfit` where some are missing.
    A NaN of a float column is a number that is none, as in NumPy."""
    return _COLUMNS[_library(value)](value)


def _matrix(frame: Any) -> Array:
    """A frame of numbers, a row for each of its rows."""
    if _library(frame) == "pandas" and all(isinstance(d, np.dtype) and d.kind in "biuf" for d in frame.dtypes):
        return np.asarray(frame)  # without a copy where its columns are one block
    found = {name: column(c) for name, c in columns(frame).items()}
    for name, array in found.items():
        if array.dtype.kind not in "biuf":
            what = "text" if is_text(array) else str(array.dtype)
            help = "some of its columns are no numbers: pass those that are, and the target by itself"
            raise Unfit(f"a {type_name(frame)} whose column `{name}` is {what}", help)
    return np.stack(list(found.values()), axis=1) if found else np.empty((len(frame), 0))


def is_text(array: Array) -> bool:
    """Whether a column is of texts alone."""
    return array.dtype.kind in "UT" or (array.dtype == object and all(isinstance(v, str) for v in array.ravel()))


def _check_whole(value: Any, missing: int) -> None:
    if missing:
        plural = "value is" if missing == 1 else "values are"
        raise Unfit(f"a {type_name(value)} of which {missing} {plural} missing", _FILL)


def _of_pandas(value: Any) -> Array:
    dtype = value.dtype
    if isinstance(dtype, np.dtype):
        return np.asarray(value)
    _check_whole(value, int(value.isna().sum()))
    plain = getattr(dtype, "numpy_dtype", None)
    return np.asarray(value if plain is None else value.to_numpy(dtype=plain))


def _of_polars(value: Any) -> Array:
    _check_whole(value, value.null_count())
    kind = str(value.dtype)
    if kind.startswith(("Categorical", "Enum")):
        return np.array(value.to_list())
    return np.array(value.to_list()) if kind.startswith("List") else np.asarray(value.to_numpy())


def _of_arrow(value: Any) -> Array:
    kind = str(value.type)
    if hasattr(value, "combine_chunks"):
        value = value.chunk(0) if value.num_chunks == 1 else value.combine_chunks()
    _check_whole(value, value.null_count)
    if kind.startswith("dictionary"):
        return _of_arrow(value.dictionary_decode())
    if kind.startswith("fixed_size_list"):
        return _of_arrow(value.flatten()).reshape(len(value), value.type.list_size)
    return np.array(value.to_pylist()) if "list" in kind else np.asarray(value.to_numpy(zero_copy_only=False))


_COLUMNS: Mapping[str, Callable[[Any], Array]] = {"pandas": _of_pandas, "polars": _of_polars, "pyarrow": _of_arrow}


# --- results ----------------------------------------------------------------------------------------------------------


def _to_torch(array: Array) -> Any:
    return optional("torch", "peers", 'results `like = "torch"` need PyTorch').from_numpy(array)


def _to_jax(array: Array) -> Any:
    found = optional("jax.numpy", "bench", 'results `like = "jax"` need JAX').asarray(array)
    if found.dtype != array.dtype:
        help = 'say `jax.config.update("jax_enable_x64", True)` first'
        raise argument_error("E0602", f"JAX would round {array.dtype} to {found.dtype}", help, ArgumentTypeError)
    return found


LIKE: Mapping[str, Callable[[Array], Any]] = {"numpy": lambda array: array, "torch": _to_torch, "jax": _to_jax}
