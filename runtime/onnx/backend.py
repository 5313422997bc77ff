"""The standard interface by which programs for ONNX are run and judged: `prepare(model).run(inputs)`.

import nnc.onnx_backend
outputs = nnc.onnx_backend.prepare(onnx.load("model.onnx")).run([x])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..call.column import Array
from ..call.messages import argument_error
from ..extras import optional
from .importing import Imported, RefusedImport, import_graph
from .load import opened

_base: Any = optional("onnx.backend.base", "onnx", "the backend interface is that of onnx")
MAX_FIXED = 64  # numbers of an input that may be part of a program


class Prepared(_base.BackendRep):  # type: ignore[misc]
    """A model that runs. What decides a shape is part of a program: where an input does, the program is made for its
    value, and again for another."""

    def __init__(self, model: Any, **options: Any):
        self._model, self._options = model, options
        initial = {t.name for t in model.graph.initializer}
        self._inputs = [i.name for i in model.graph.input if i.name not in initial]
        self._outputs = [o.name for o in model.graph.output]
        self._made: dict[Any, tuple[Imported, Any]] = {}
        self._refused: RefusedImport | None = None
        try:
            self._made[()] = self._compiled({})
        except RefusedImport as e:
            if not any("must be known" in r.reason for r in e.refusals):
                raise
            self._refused = e

    def run(self, inputs: Sequence[Any], **options: Any) -> tuple[Array, ...]:
        """The outputs, in the order of the graph's. Raises ArgumentError (E0604) for more or fewer inputs."""
        if len(inputs) != len(self._inputs):
            wanted = ", ".join(f"`{name}`" for name in self._inputs) or "none"
            raise argument_error("E0604", f"the model has the inputs {wanted}, and {len(inputs)} are given")
        given = dict(zip(self._inputs, map(np.asarray, inputs), strict=True))
        fixed: dict[str, Array] = {}
        if self._refused is not None:
            fixed = {n: a for n, a in given.items() if a.ndim < 2 and a.size <= MAX_FIXED and a.dtype.kind in "iubf"}
        key = tuple((n, a.tobytes()) for n, a in fixed.items())
        if key not in self._made:
            self._made[key] = self._compiled(fixed)
        made, net = self._made[key]
        results = net.predict(*(given[name] for name in made.inputs.values()))
        several = results if isinstance(results, tuple) else (results,)
        return tuple(np.asarray(r) for r in several)

    def _compiled(self, fixed: Mapping[str, Array]) -> tuple[Imported, Any]:
        made = import_graph(self._model, "the model", fixed=fixed)
        return made, opened(made, **self._options)


class Backend(_base.Backend):  # type: ignore[misc]
    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **options: Any) -> Prepared:
        if not cls.supports_device(device):
            raise argument_error("E0603", f"the device must be CPU, got {device!r}")
        super().prepare(model, device)
        return Prepared(model, **options)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
