"""The layers of `networks` on shapes alone: which parameters there are, and how many multiplications are added up.

A product of the forward pass is two more in the backward pass, one for each operand that has a gradient; the input of
a network has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

BLOCK = 64  # queries that nnc takes together, with the keys that the last of them sees


@dataclass(frozen=True)
class Value:
    """What is known of a tensor: its shape, whether it depends on parameters, and who counts products."""

    shape: tuple[int, ...]
    has_gradient: bool
    layers: Shapes

    def __add__(self, other: Value) -> Value:
        return Value(self.shape, self.has_gradient or other.has_gradient, self.layers)

    __mul__ = __add__

    def __matmul__(self, other: Value) -> Value:
        return self.layers.product(self, other, (*self.shape[:-1], other.shape[-1]), self.shape[-1])

    @property
    def T(self) -> Value:
        return Value(self.shape[::-1], self.has_gradient, self.layers)


def _same(self: Shapes, x: Value) -> Value:
    return x


@dataclass
class Shapes:
    """Parameters and state by path, and products: `macs` forward, `training_macs` forward and backward."""

    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    macs: int = 0
    training_macs: int = 0

    relu = tanh = exp = sigmoid = gelu = _same

    def input(self, shape: tuple[int, ...]) -> Value:
        return Value(shape, False, self)

    def weight(self, path: str, *shape: int) -> Value:
        self.parameters[path] = shape
        return Value(shape, True, self)

    def product(self, a: Value, b: Value, shape: tuple[int, ...], summed: int) -> Value:
        """A contraction: `summed` multiplications for each element of the result."""
        macs = prod(shape) * summed
        self.macs += macs
        self.training_macs += macs * (1 + a.has_gradient + b.has_gradient)
        return Value(shape, a.has_gradient or b.has_gradient, self)

    def dense(self, x: Value, path: str, units: int) -> Value:
        w = self.weight(f"{path}.W", units, x.shape[-1])
        return self.product(x, w, (*x.shape[:-1], units), x.shape[-1]) + self.weight(f"{path}.b", units)

    def conv(
        self, x: Value, path: str, filters: int, kernel: int, stride: int = 1, pad: int = 0, bias: bool = True
    ) -> Value:
        w = self.weight(f"{path}.W", filters, x.shape[1], kernel, kernel)
        shape = (x.shape[0], filters, *self._windows(x, kernel, stride, pad))
        y = self.product(x, w, shape, prod(w.shape[1:]))
        return y + self.weight(f"{path}.b", filters) if bias else y

    @staticmethod
    def _windows(x: Value, size: int, stride: int, pad: int) -> tuple[int, ...]:
        return tuple((n + 2 * pad - size) // stride + 1 for n in x.shape[2:])

    def norm(self, x: Value, path: str) -> Value:
        for name in ("gamma", "beta", "running_mean", "running_var"):
            self.weight(f"{path}.{name}", x.shape[1])
        return x

    def layer_norm(self, x: Value, path: str) -> Value:
        for name in ("gamma", "beta"):
            self.weight(f"{path}.{name}", x.shape[-1])
        return x

    def max_pool(self, x: Value, size: int, stride: int, pad: int = 0) -> Value:
        return Value((*x.shape[:2], *self._windows(x, size, stride, pad)), x.has_gradient, self)

    def mean_pool(self, x: Value) -> Value:
        return Value(x.shape[:2], x.has_gradient, self)

    def flat(self, x: Value) -> Value:
        return Value((x.shape[0], prod(x.shape[1:])), x.has_gradient, self)

    def widened(self, x: Value) -> Value:
        b, c, h, w = x.shape
        return Value((b, 2 * c, h // 2, w // 2), x.has_gradient, self)

    def lstm(self, x: Value, path: str, units: int) -> Value:
        b, t, d = x.shape
        w, u = self.weight(f"{path}.W", 4 * units, d), self.weight(f"{path}.U", 4 * units, units)
        self.weight(f"{path}.b", 4 * units)
        self.product(x, w, (b, t, 4 * units), d)
        s = Value((b, t, units), True, self)
        self.product(s, u, (b, t, 4 * units), units)
        return s

    def embedding(self, index: Value, path: str, n: int, width: int) -> Value:
        self.weight(f"{path}.W", n, width)
        return Value((*index.shape, width), True, self)

    def positions(self, x: Value, path: str) -> Value:
        return x + self.weight(f"{path}.W", *x.shape[1:])

    def attention(self, x: Value, path: str, heads: int) -> Value:
        b, t, d = x.shape
        q, k, v = (self.dense(x, f"{path}.{name}", d) for name in ("query", "key", "value"))
        seen = (t + min(t, BLOCK)) // 2  # keys of a query, on average
        self.product(q, k, (b, heads, t, seen), d // heads)
        return self.dense(self.product(q, v, x.shape, seen), f"{path}.result", d)

    def scores(self, x: Value, path: str) -> Value:
        w = Value(self.parameters[f"{path}.W"], True, self)
        return self.product(x, w, (*x.shape[:-1], w.shape[0]), w.shape[1])
