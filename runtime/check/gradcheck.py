"""Gradient checking: the compiled derivative against central differences of the compiled loss, both in float64.

(f(p + h) - f(p - h)) / 2h differs from the derivative by O(h^2) and by rounding of about 1e-16 / h; h = 1e-6 leaves
six digits or more (Gill, Murray and Wright, Practical Optimization, 1981).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ...compiler.manifest import Port
from ...compiler.types.sizes import Dim, substitute, symbols
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError
from ..model import Model
from .twin import twin

STEP = 1e-6
TOLERANCE = 1e-5


class GradientError(NncError, ArithmeticError):
    """A compiled gradient does not agree with finite differences (E0614)."""


def grad_check(
    net: Model, *args: Any, samples: int = 12, tolerance: float = TOLERANCE, **kwargs: Any
) -> dict[str, float]:
    """The worst error of the loss's gradient, by parameter path and float input.

    args: inputs and targets as for `net.loss`. samples: elements tried in each tensor, spread evenly. The error is
    |analytic - numeric| / max(1, |analytic|, |numeric|). Raises GradientError where one exceeds `tolerance`.
    """
    other = twin(net, dtype="f64", threads=1)
    call = other.entry("gradients")
    arrays = [
        np.array(a, np.float64 if p.dtype in ("f32", "f64") else None)
        for a, p in zip(call.arguments(args, kwargs), call.signature.inputs, strict=True)
    ]
    analytic = other.gradients(*arrays, wrt=call.names)
    inputs = {p.name: a for p, a in zip(call.signature.inputs, arrays, strict=True)}
    trained = other.train_spec.trained
    errors: dict[str, float] = {}
    for name, gradient in analytic.items():
        moved = {name: other.variables[name].copy()} if name in other.variables else {}
        values = moved[name] if moved else inputs[name]
        loss = partial(_loss, other, moved, arrays, trained.get(name))
        errors[name] = _worst(loss, values.reshape(-1), gradient.reshape(-1), samples)
        other.variables.write(moved)
    bad = {n: e for n, e in errors.items() if not e <= tolerance}
    if bad:
        worst = max(bad, key=lambda n: bad[n])
        raise GradientError(
            Diagnostic(
                "E0614",
                f"the gradient of `{worst}` differs from finite differences by {bad[worst]:.2g}",
                (),
                (f"more than {tolerance:g} also in: {', '.join(n for n in bad if n != worst)}",)
                if len(bad) > 1
                else (),
            )
        )
    return errors


def _loss(net: Model, moved: Mapping[str, Any], arrays: list[Any], name: str | None) -> float:
    """One loss of several by its name, or all together; with variables as they have been moved."""
    net.variables.write(moved)
    value = net.loss(*arrays)
    if isinstance(value, float):
        return value
    return float(sum(value.values()) if name is None else value[name])


def _worst(loss: Callable[[], float], flat: Any, gradient: Any, samples: int) -> float:
    worst = 0.0
    for k in np.unique(np.linspace(0, max(0, flat.size - 1), min(samples, flat.size)).astype(int)) if flat.size else ():
        before = flat[k]
        flat[k] = before + STEP
        above = loss()
        flat[k] = before - STEP
        below = loss()
        flat[k] = before
        numeric = (above - below) / (2 * STEP)
        error = abs(numeric - gradient[k]) / max(1.0, abs(numeric), abs(float(gradient[k])))
        worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst


def sample_inputs(
    ports: tuple[Port, ...], batch: int = 3, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> list[Any]:
    """Inputs to check with when there are none: normal floats, integers 0 and 1, `batch` for every name of a size that
    is not among `sizes`."""
    rng = np.random.default_rng(seed)
    out: list[Any] = []
    for p in ports:
        shape = tuple(_at(d, batch, sizes or {}) for d in p.shape)
        if p.dtype in ("f32", "f64"):
            out.append(rng.normal(size=shape))
        elif p.dtype == "bool":
            out.append(rng.random(shape) < 0.5)
        else:
            out.append(rng.integers(0, 2, shape))
    return out


def _at(d: Dim, batch: int, sizes: Mapping[str, int]) -> int:
    n = substitute(d, {**dict.fromkeys(symbols(d), batch), **sizes})
    assert isinstance(n, int)
    return n


def check_model(net: Model) -> Mapping[str, float]:
    """`grad_check` with made-up inputs: what `gradcheck Model` in a test block runs."""
    return grad_check(net, *sample_inputs(net.entry("gradients").signature.inputs))
