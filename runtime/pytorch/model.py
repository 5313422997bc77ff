"""A module of PyTorch as a compiled model that knows the names that PyTorch has for what it learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.settings import Settings
from ...dsl.source import Source
from ..api import open_program, tells_the_source
from ..call.messages import argument_error, listed
from ..extras import optional
from ..model import Model
from .capture import Axes
from .graph import Taken, import_module

if TYPE_CHECKING:
    from ...compiler.session import Session


class TorchModel(Model):
    """What `nnc.from_torch` returns: a `Model` which gives back the module's state."""

    __slots__ = ("_taken",)

    def __init__(self, session: Session, taken: Taken, **options: Any):
        super().__init__(session, **options)
        self.assign(taken.imported.arrays)
        self._taken = replace(taken, imported=replace(taken.imported, arrays={}))  # they are in the variables now

    @property
    def text(self) -> str:
        """The model as `.nn` text."""
        return self._taken.imported.text

    def to_state_dict(self) -> dict[str, Any]:
        """What `module.load_state_dict` takes: parameters and buffers as they are now, by the module's names. What the
        model does not read, as counts of batches, is as it was when the module was taken."""
        torch = optional("torch", "torch", "a state is given back as tensors of torch")
        taken = self._taken
        with self.workspace.lock:
            held = {
                n: torch.from_numpy(np.concatenate([self.variables[p] for p in paths]))
                if len(paths) > 1
                else torch.from_numpy(self.variables[paths[0]].copy())
                for n, paths in taken.paths.items()
            }
        return {n: held[n] if n in held else taken.rest[n].clone() for n in taken.order}


@tells_the_source
def from_torch(
    module: Any,
    example_inputs: Any,
    *,
    train: str = "",
    axes: Axes | None = None,
    mode: str = "both",
    name: str = "",
    seed: int | None = None,
    threads: int | None = None,
    dtype: str = "f32",
    target_cpu: str = "native",
    cache: bool = True,
    precise: bool = False,
    weights_dtype: str = "f32",
) -> TorchModel:
    """A `torch.nn.Module` as a model of ours, with its parameters.

    example_inputs: a tensor, a tuple of positional ones, or a dict by name; only shapes and dtypes matter. axes: by
    input, the axes that are free and what their sizes are called, `{"x": {0: "B", 1: "T"}}`; default: axis 0 of each is
    B. train: a train block for the text, `train Net(x, label: i32[B]) { .. }`. mode: "eval" or "train" where the module
    computes different things in them. name: of the model (default: the module's class). The others are as in `compile`.

    Raises UnsupportedError (E0634) that lists what cannot be written, (E0503) where torch is not installed.
    """
    taken = import_module(module, example_inputs, axes=axes, mode=mode, name=name, train=train)
    if taken.frozen and train and "freeze" not in train:
        held = f"the module does not train {listed(taken.frozen)} (`requires_grad = False`), this train block would"
        raise argument_error("E0604", held, f"write `freeze = params([{', '.join(_parts(taken))}])` in it")
    options = Settings(
        model=taken.imported.model,
        dtype=dtype,
        target_cpu=target_cpu,
        cache=cache,
        precise=precise,
        weights_dtype=weights_dtype,
    )
    session, _ = open_program(Source("<text>", taken.imported.text), options)
    return TorchModel(session, taken, seed=seed, threads=threads)


def _parts(taken: Taken) -> Mapping[str, None]:
    """The layers that own what is not trained."""
    return dict.fromkeys(path.rpartition(".")[0] for path in taken.frozen)
