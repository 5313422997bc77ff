"""An entry point whose arrays are bound once: nothing is looked at, allocated or copied when it is called.

In: the arrays of a call, and perhaps those for its results. Out: a function without arguments. What the arrays hold may
change between calls; where they are may not, so one that a call would have to copy is refused. Results are in the same
arrays after every call, which overlap nothing that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ctypes import addressof
from typing import Any

import numpy as np

from ...compiler.types.tensors import TensorType
from ...dsl.errors import ArgumentTypeError
from .arrays import NUMPY, address_of, bind, describe
from .calls import Call
from .column import Array
from .foreign import view
from .messages import argument_error


class Bound:
    """`run()` fills `outputs` and gives them: an array, or a named tuple of arrays. Safe from several threads, like the
    network it is of; where those are to read results, each binds arrays of its own."""

    __slots__ = ("_address", "_call", "_results", "_sized", "_slots", "inputs", "outputs")

    def __init__(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Any,
        named: Callable[..., Any],
        make: Callable[[Array], Any],
    ):
        """Raises `ArgumentError` and its kinds as a call would, and E0602 for what cannot be bound as it lies. `named`
        makes one value of several results, `make` a result of each array, where these are not given."""
        s, values = call.signature, [view(value) for value in call.arguments(args, kwargs)]
        self.inputs, sizes = bind(s.name, call.wants, values)
        for port, value, array in zip(s.inputs, values, self.inputs, strict=True):
            if array is not value:
                raise _moved(f"`{port.name}` of {s.name}", port.type, value)
        self._call, self._sized, self._slots = call, call.sized(sizes), call.slots_copy()
        wanted = self._sized.outputs
        made = tuple(np.empty(shape, dtype) for _, shape, dtype in wanted)
        results = _given(out, call) if out is not None else [make(array) for array in made]
        self.outputs = made if out is None else tuple(view(result) for result in results)
        seen: list[Array] = [*self.inputs, *call.variables]
        for port, array, (_, shape, dtype) in zip(s.outputs, self.outputs, wanted, strict=True):
            what = f"`{port.name}` of {s.name}"
            type_ = TensorType(port.dtype, shape)
            if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.carray:
                raise _moved(what, type_, array)
            if array.shape != shape:
                raise argument_error("E0601", f"{what} is {type_}, but `out` has {describe(array)} for it")
            if any(np.may_share_memory(array, other) for other in seen):
                raise argument_error("E0604", f"`out` for {what} overlaps what {s.name} reads, or another result")
            seen.append(array)
        for k, array in enumerate(self.inputs):
            self._slots[k] = address_of(array)
        for (slot, _, _), array in zip(wanted, self.outputs, strict=True):
            self._slots[slot] = address_of(array)
        self._address = addressof(self._slots)
        self._results = results[0] if len(results) == 1 else named(*results)

    def __call__(self) -> Any:
        call = self._call
        with call.workspace.lock:
            status = call.launch(self._sized, self._address)
        if status:
            call.failed(status, self.inputs)
        return self._results

    def __repr__(self) -> str:
        given = ", ".join(map(describe, self.inputs))
        return f"<{self._call.signature.name} of {given}, into {', '.join(map(describe, self.outputs))}>"


def _given(out: Any, call: Call) -> Sequence[Any]:
    """The arrays for the results: one, or a tuple or list of as many as there are."""
    ports = call.signature.outputs
    arrays = out if isinstance(out, tuple | list) else (out,)
    if len(arrays) != len(ports):
        names = ", ".join(f"`{p.name}`" for p in ports)
        what = f"{call.signature.name} has {len(ports)} results ({names}), but `out` has {len(arrays)} arrays"
        raise argument_error("E0604", what, kind=ArgumentTypeError)
    return arrays


def _moved(what: str, type_: TensorType, value: Any) -> Exception:
    """That a value is not bound, because a call would read or write a copy of it."""
    got = type(value).__qualname__
    if isinstance(value, np.ndarray):
        flags = value.flags
        got = (
            describe(value)
            + ("" if flags.c_contiguous else ", not contiguous")
            + ("" if flags.aligned else ", not aligned")
        )
        got += "" if flags.writeable else ", read-only"
    help = f"`numpy.ascontiguousarray(.., numpy.{NUMPY[type_.dtype].name})` is such an array"
    message = f"{what} is bound as it lies: a contiguous array {type_}, got {got}"
    return argument_error("E0602", message, help, ArgumentTypeError)
