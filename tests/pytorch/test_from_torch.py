"""Modules of PyTorch as models of ours: equal outputs, equal training, and the state back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnc

torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
from nnc.dsl.format import format  # noqa: E402
from nnc.dsl.parser import parse  # noqa: E402
from nnc.dsl.source import Source  # noqa: E402
from nnc.runtime.pytorch import import_module  # noqa: E402

from .modules import MODULES  # noqa: E402

TRAIN = "train Net({inputs}, target: f32{shape}) {{\n    loss = {loss}\n    optimizer = SGD(lr = 0.3)\n}}\n"


def made(name: str) -> tuple[Any, tuple[Any, ...], Any]:
    torch.manual_seed(0)
    module, inputs, axes = MODULES[name]
    return module(), inputs(), axes


def results(module: Any, inputs: tuple[Any, ...]) -> list[Any]:
    y = module(*inputs)
    return list(y.values()) if isinstance(y, dict) else [y]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_predicts_and_trains_as_in_torch(name: str) -> None:
    module, inputs, axes = made(name)
    module.train()
    shapes = [list(y.shape) for y in results(module, inputs)]
    free = [["B" if n == 3 and k == 0 else n for k, n in enumerate(s)] for s in shapes]
    outputs = ["image", "mu", "logvar"] if name == "vae" else ["y"]
    loss = " + ".join([f"mean(({outputs[0]} - target)^2)", *(f"mean({n}^2)" for n in outputs[1:])])
    taken = import_module(module, inputs, axes=axes)
    train = TRAIN.format(inputs=", ".join(taken.imported.inputs), shape=str(free[0]).replace("'", ""), loss=loss)
    net = nnc.from_torch(module, inputs, axes=axes, train=train, name="Net", seed=0)
    arrays = [x.numpy() for x in inputs]

    module.eval()
    found = net.predict(*arrays)
    for mine, theirs in zip([found] if len(outputs) == 1 else found, results(module, inputs), strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), atol=1e-5, rtol=1e-5)

    module.train()
    target = torch.randn(shapes[0])
    sgd = torch.optim.SGD(module.parameters(), lr=0.3)
    for _ in range(2):
        sgd.zero_grad()
        first, *rest = results(module, inputs)
        value = ((first - target) ** 2).mean() + sum((r**2).mean() for r in rest)
        value.backward()
        sgd.step()
        np.testing.assert_allclose(net.train_step(*arrays, target.numpy()), value.item(), rtol=1e-5)
    mine, theirs = net.to_state_dict(), module.state_dict()
    assert list(mine) == list(theirs)
    for key, value in theirs.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_allclose(mine[key].numpy(), value.numpy(), atol=1e-5, rtol=1e-5, err_msg=key)

    again, *_ = made(name)
    again.load_state_dict(mine)
    again.eval()
    for a, b in zip(results(again, inputs), results(module.eval(), inputs), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_the_text_is_canonical_and_short(name: str) -> None:
    module, inputs, axes = made(name)
    text = import_module(module, inputs, axes=axes).imported.text
    source = Source("net.nn", text)
    assert format(parse(source), source) == text
    assert len(text.splitlines()) <= 60
