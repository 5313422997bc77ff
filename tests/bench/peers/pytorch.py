"""PyTorch: eager, with channels last, or compiled; and who writes the ONNX model for those that read one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..rows import Array, Row
from . import model_file


class Net(torch.nn.Module):
    """A network of `networks` as a module; its parameters are drawn arrays, which it takes out of `weights`."""

    relu, tanh, exp = staticmethod(torch.relu), staticmethod(torch.tanh), staticmethod(torch.exp)
    sigmoid, gelu = staticmethod(torch.sigmoid), staticmethod(F.gelu)
    max_pool = staticmethod(F.max_pool2d)

    def __init__(self, row: Row, weights: dict[str, Array], memory: torch.memory_format) -> None:
        super().__init__()
        self.network = row.network
        for path in [p for p in weights if p.endswith(".U")]:
            self._add_lstm(path.removesuffix(".U"), weights)
        for path in [p for p in weights if ".query." in p]:  # one product instead of three
            parts = [weights.pop(path.replace("query", name)) for name in ("query", "key", "value")]
            weights[path.replace("query", "all")] = np.concatenate(parts)
        for path in list(weights):
            tensor = torch.from_numpy(weights.pop(path))
            tensor = tensor.contiguous(memory_format=memory) if tensor.ndim == 4 else tensor
            if ".running_" in path:
                self.register_buffer(self._name(path), tensor)
            else:
                self.register_parameter(self._name(path), torch.nn.Parameter(tensor))

    @staticmethod
    def _name(path: str) -> str:
        return path.replace(".", "__")

    def _add_lstm(self, path: str, weights: dict[str, Array]) -> None:
        w, u, b = (torch.from_numpy(weights.pop(f"{path}.{name}")) for name in "WUb")
        layer = torch.nn.LSTM(w.shape[1], u.shape[1], batch_first=True)
        with torch.no_grad():
            for name, value in (("weight_ih_l0", w), ("weight_hh_l0", u), ("bias_ih_l0", b), ("bias_hh_l0", 0 * b)):
                getattr(layer, name).copy_(value)
        layer.bias_hh_l0.requires_grad_(False)  # the two biases are one
        self.add_module(self._name(path), layer)

    def _of(self, path: str) -> Any:
        return getattr(self, self._name(path), None)

    def forward(self, *inputs: Any) -> Any:
        return self.network(self, *inputs)

    # --- layers -------------------------------------------------------------------------------------------------------

    def dense(self, x: Any, path: str, units: int) -> Any:
        return F.linear(x, self._of(f"{path}.W"), self._of(f"{path}.b"))

    def conv(
        self, x: Any, path: str, filters: int, kernel: int, stride: int = 1, pad: int = 0, bias: bool = True
    ) -> Any:
        return F.conv2d(x, self._of(f"{path}.W"), self._of(f"{path}.b"), stride, pad)

    def norm(self, x: Any, path: str) -> Any:
        mean, var, gamma, beta = (self._of(f"{path}.{n}") for n in ("running_mean", "running_var", "gamma", "beta"))
        return F.batch_norm(x, mean, var, gamma, beta, self.training)

    def layer_norm(self, x: Any, path: str) -> Any:
        return F.layer_norm(x, x.shape[-1:], self._of(f"{path}.gamma"), self._of(f"{path}.beta"))

    def mean_pool(self, x: Any) -> Any:
        return x.mean((2, 3))

    def flat(self, x: Any) -> Any:
        return x.flatten(1)

    def widened(self, x: Any) -> Any:
        c = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, c, c))

    def lstm(self, x: Any, path: str, units: int) -> Any:
        return self._of(path)(x)[0]

    def embedding(self, index: Any, path: str, n: int, width: int) -> Any:
        return F.embedding(index, self._of(f"{path}.W"))

    def positions(self, x: Any, path: str) -> Any:
        return x + self._of(f"{path}.W")

    def attention(self, x: Any, path: str, heads: int) -> Any:
        b, t, d = x.shape
        q, k, v = self.dense(x, f"{path}.all", 3 * d).reshape(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        return self.dense(y, f"{path}.result", d)

    def scores(self, x: Any, path: str) -> Any:
        return F.linear(x, self._of(f"{path}.W"))


class Call:
    """Inference."""

    def __init__(self, net: Callable[..., Any], inputs: list[Any]) -> None:
        self.net, self.inputs = net, inputs

    def run(self) -> Any:
        with torch.inference_mode():
            return self.net(*self.inputs)

    def result(self, k: int) -> list[Array]:
        return [self.run().numpy()]


class Gradient:
    """A sum, and its gradient with respect to the input."""

    def __init__(self, net: Callable[..., Any], x: Any) -> None:
        self.net, self.x = net, x.requires_grad_()

    def run(self) -> Any:
        self.x.grad = None
        loss = self.net(self.x).sum()
        loss.backward()
        return loss

    def result(self, k: int) -> list[Array]:
        return [self.run().detach().numpy(), self.x.grad.numpy()]


class Training:
    """A loop of eager or compiled steps."""

    def __init__(self, row: Row, net: Net, batches: list[Any], compiled: bool) -> None:
        def cross_entropy(x: Any, target: Any) -> Any:
            y = net(x)
            return F.cross_entropy(y.reshape(-1, y.shape[-1]), target.reshape(-1))

        def squares(x: Any, target: Any) -> Any:
            return ((net(x) - target) ** 2).mean()

        loss_of = cross_entropy if row.loss == "cross_entropy" else squares
        self.loss_of = torch.compile(loss_of) if compiled else loss_of
        self.batches = batches
        rule = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}[row.optimizer]
        self.optimizer = rule([p for p in net.parameters() if p.requires_grad], lr=row.lr, fused=True)

    def step(self, x: Any, target: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(x, target)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self) -> None:
        for batch in self.batches:
            self.step(*batch)

    def result(self, k: int) -> list[Array]:
        return [self.step(*self.batches[k]).numpy()]


def _tensors(row: Row, arrays: list[Array], memory: torch.memory_format) -> list[Any]:
    tensors = [torch.from_numpy(a) for a in arrays]
    return [t.contiguous(memory_format=memory) if t.ndim == 4 else t for t in tensors]


def contender(
    who: str, row: Row, arrays: list[Array], weights: dict[str, Array], threads: int, folder: Path
) -> Call | Gradient | Training:
    torch.set_num_threads(threads)
    memory = torch.channels_last if who == "torch-channels-last" else torch.contiguous_format
    net = Net(row, weights, memory).train(row.trains)
    if row.trains:
        *inputs, target = arrays
        target = target.astype(np.int64) if row.loss == "cross_entropy" else target
        cut = [np.split(a, row.steps) for a in (*inputs, target)]
        return Training(
            row, net, [_tensors(row, list(b), memory) for b in zip(*cut, strict=True)], who == "torch-compile"
        )
    called = torch.compile(net) if who == "torch-compile" else net
    tensors = _tensors(row, arrays, memory)
    return Gradient(called, tensors[0]) if row.differentiates else Call(called, tensors)


def export(row: Row, arrays: list[Array], weights: dict[str, Array], folder: Path) -> None:
    """Write the network as an ONNX model for the shapes of the row."""
    net = Net(row, weights, torch.contiguous_format).eval()
    inputs = tuple(torch.from_numpy(a) for a in arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer exporter, which writes the same
        torch.onnx.export(net, inputs, str(folder / model_file(row)), dynamo=False)
