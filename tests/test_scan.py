"""The loop at run time: what `scan` means, its derivatives, and the code it becomes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnc
from nnc.compiler.elaborate import Program
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.compiler.loops.meaning import run as run_loops
from nnc.compiler.loops.parse import parse_loops
from nnc.compiler.loops.text import print_loops
from nnc.compiler.lowering.memory import output_slot
from nnc.compiler.passes import ALWAYS, REWRITE, run
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.sizes import substitute
from nnc.dsl.source import Source

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def compiled(tmp_path: Path, text: str, **options) -> nnc.Model:
    path = tmp_path / "p.nn"
    path.write_text(text)
    return nnc.compile(path, dtype="f64", cache=False, **options)


# --- values ----------------------------------------------------------------------------------------------------------

RNN = """
fn f(x: f32[B, T, D], U: f32[D, D], s0: f32[B, D]) -> (s: f32[B, D], ys: f32[B, T, D]) {
    s = s0
    scan t in 0..T {
        s = tanh(x[:, t] + s @ U)
        ys[b, t, k] = s[b, k] * x[b, t, k]
    }
}
"""


def rnn(x, U, s):
    ys = np.zeros_like(x)
    for t in range(x.shape[1]):
        s = np.tanh(x[:, t] + s @ U)
        ys[:, t] = s * x[:, t]
    return s, ys


@pytest.mark.parametrize("turns", [0, 1, 2, 7])
def test_one_compilation_runs_any_number_of_turns(tmp_path, turns):
    net = compiled(tmp_path, RNN)
    args = normal(2, turns, 3), normal(3, 3), normal(2, 3)
    for got, wanted in zip(net.f(*args), rnn(*args), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


VALUES = {
    "numbers become what the first turn makes of them": (
        "fn f(x: f32[T, B]) -> f32[B] {\n s = 0\n scan t in 0..T { s = s / 2 + x[t] }\n return s\n}",
        (normal(4, 3),), lambda x: x[3] + x[2] / 2 + x[1] / 4 + x[0] / 8),
    "whole numbers stay whole": (
        "fn f(n: i32[N]) -> i32 {\n k = 0\n scan t in 0..N { k = k + t * n[t] }\n return k\n}",
        (np.array([3, 1, 4], np.int32),), lambda n: 1 * 1 + 2 * 4),
    "values change places": (
        "fn f(n: f32[N]) -> f32[N] {\n (a, b) = (0.0, 1.0)\n"
        " scan t in 0..N {\n  c = a + b\n  a = b\n  b = c\n  fib[t] = a\n }\n return fib\n}",
        (np.zeros(7),), lambda n: np.array([1, 1, 2, 3, 5, 8, 13])),
    "the index from 1, backwards, and as a number": (
        "fn f(x: f32[T, K]) -> f32[T - 1, K] {\n"
        " scan t in 1..T { d[t, k] = (x[t, k] - x[t - 1, k]) * t + x[T - t, k] }\n return d\n}",
        (normal(5, 2),), lambda x: np.diff(x, axis=0) * np.arange(1, 5)[:, None] + x[:0:-1]),
    "a scan in a scan": (
        "fn f(x: f32[N, M, K]) -> f32[N, M, K] {\n s = 0\n scan i in 0..N {\n"
        "  scan j in 0..M {\n   s = s + x[i, j]\n   row[j] = s\n  }\n  all[i] = row\n }\n return all\n}",
        (normal(2, 3, 4),), lambda x: np.cumsum(x.reshape(6, 4), 0).reshape(2, 3, 4)),
    "a matrix is carried": (
        "fn f(x: f32[T, N, N]) -> f32[N, N] {\n p = x[0]\n scan t in 1..T { p = p @ x[t] }\n return p\n}",
        (normal(4, 3, 3),), lambda x: x[0] @ x[1] @ x[2] @ x[3]),
    "an axis of turns anywhere": (
        "fn f(x: f32[T, A, B]) -> f32[A, T, B] {\n scan t in 0..T { y[a, t, *s] = 2 * x[t, a, *s] }\n return y\n}",
        (normal(3, 2, 4),), lambda x: 2 * x.transpose(1, 0, 2)),
    "rows by an index that data decide": (
        "fn f(x: f32[N, K], i: i32[T]) -> f32[K] {\n s = 0\n scan t in 0..T { s = 2 * s + x[i[t]] }\n return s\n}",
        (normal(5, 2), np.array([4, 0, 4], np.int32)), lambda x, i: x[4] * 5 + x[0] * 2),
    "until": (
        "fn f(x: f32, n: f32[N]) -> (y: f32, k: i32, r: f32[N]) {\n y = x\n k = 0\n"
        " scan t in 0..N until abs(y * y - 2) < 1e-5 {\n  y = 0.5 * (y + 2 / y)\n  k = k + 1\n  r[t] = y\n }\n}",
        (np.float64(3), np.zeros(6)), lambda x, n: (
            1.4142137800471977, 4, [11 / 6, 1.4621212121212122, 1.4149984298948028, 1.4142137800471977, 0, 0],
        )),
    "a size called like the index": (
        "fn f(x: f32[t]) -> f32 {\n s = 0.0\n scan t in 0..t { s = s * 2 + x[t] }\n return s\n}",
        (np.array([1.0, 2, 3]),), lambda x: 11.0),
    "what is carried is not read, and read behind": (
        "fn f(x: f32[T, K]) -> f32[K] {\n p = x[0]\n c = 0.0\n scan t in 0..T {\n  p = x[t] * 2\n  c = c + 1\n }\n"
        " return p\n}", (normal(3, 4),), lambda x: 2 * x[-1]),
    "nothing is carried": (
        "fn f(x: f32[T, K]) -> f32[T] {\n scan t in 0..T { y[t] = max(x[t]) }\n return y\n}",
        (normal(3, 4),), lambda x: x.max(1)),
    "sizes that grow with the turn": (
        "fn f(x: f32[T, K], w: f32[K, T]) -> (y: f32[T, K], s: f32[K], n: f32[T]) {\n s = 0.0\n scan t in 0..T {\n"
        "  seen = x[:t + 1]\n  p = softmax(seen @ w, axis = 0)\n"
        "  s = s + sum(p, axis = 0) @ w.T * 0.1 + max(seen, axis = 0)\n"
        "  y[t] = cumsum(seen, axis = 0)[t]\n  n[t] = cast(size(seen, 0), f32)\n }\n}",
        (normal(5, 3), normal(3, 5)), lambda x, w: (
            np.cumsum(x, 0), sum(np.ones(5) @ w.T * 0.1 + x[:t + 1].max(0) for t in range(5)), np.arange(1.0, 6))),
    "sizes that shrink, in a scan in a scan": (
        "fn f(x: f32[N, M], k: f32[M]) -> f32[N] {\n scan i in 0..N {\n  s = 0.0\n"
        "  scan j in 0..M {\n   s = s + sum(x[i:, j:] * expand(k[j:], 0))\n  }\n  y[i] = s\n }\n return y\n}",
        (normal(4, 3), normal(3)), lambda x, k: np.array(
            [sum((x[i:, j:] * k[j:]).sum() for j in range(3)) for i in range(4)])),
    "a value is carried that never changes": (
        "fn f(x: f32[T]) -> (a: f32, b: f32) {\n (a, b) = (3.0, 1.0)\n"
        " scan t in 0..T {\n  a = a\n  b = b * a + x[t]\n }\n}",
        (np.array([1.0, 2]),), lambda x: (3.0, 14.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("optimize", [True, False])
def test_values(tmp_path, name, optimize):
    text, args, wanted = VALUES[name]
    net = compiled(tmp_path, text, optimize=optimize)
    got, expected = net.f(*args), wanted(*args)
    for g, w in zip(got if isinstance(got, tuple) else (got,), expected if isinstance(expected, tuple) else (expected,),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(g, w, atol=1e-12)


# --- derivatives -----------------------------------------------------------------------------------------------------

SCALARS = {
    "weights, a bias, slices, collected values": ("""
fn f(x: f32[B, T, D], U: f32[D, D], b: f32[D], s0: f32[B, D]) -> f32 {
    s = s0
    scan t in 0..T {
        s = tanh(x[:, t] @ U + b + s @ U.T) * 0.9
        ys[b, t, k] = s[b, k] * x[b, t, k]
    }
    return sum(ys^2) + sum(s)
}
""", ((2, 4, 3), (3, 3), (3,), (2, 3))),
    "a scan in a scan, read backwards": ("""
fn f(x: f32[N, M, K], W: f32[K, K]) -> f32 {
    s = sum(x[0, 0]) * W[0]
    scan i in 0..N {
        c = 0.0
        scan j in 0..M {
            s = tanh(0.5 * s @ W + x[i, j])
            c = c + sum(s * s)
            row[j] = s * x[N - 1 - i, j]
        }
        z[i] = row * c
    }
    return sum(z * x)
}
""", ((3, 2, 2), (2, 2))),
    "an embedding, and what is the same in every turn": ("""
fn f(e: f32[5, K], g: f32[K], u: f32[T]) -> f32 {
    s = 0.0
    scan t in 1..T {
        i = cast(abs(u[t]) * 100, i32) % 5
        s = s * 0.9 + sum(e[i] * g) * u[t - 1] + sum(g^3) + sum(e[2:4])
    }
    return s^2
}
""", ((5, 3), (3,), (4,))),
    "a gradient in each turn": ("""
fn energy(x: f32[N, K], W: f32[K, K]) -> f32 = sum(tanh(x @ W)^2) + 0.1 * sum(x^4)
fn f(x: f32[N, K], W: f32[K, K]) -> f32 {
    scan step in 0..3 { x = x - 0.1 * grad(energy(x, W), x) }
    return sum(x * x @ W)
}
""", ((3, 2), (2, 2))),
    "a window at the index, an index times two": ("""
fn f(x: f32[T, K], w: f32[2, K]) -> f32 {
    s = 0.0
    scan t in 0..T - 1 {
        v = x[t:t + 2]
        s = s * 0.9 + sum(v * w) + sum(x[T - 1 - t, 0:1]^2)
        ys[t, j] = v[j, 0] * s
    }
    scan t in 0..T // 2 { s = s + sum(x[2 * t]^2) * t }
    return s^2 + sum(ys^3)
}
""", ((5, 2), (2, 2))),
    "sizes that grow with the turn": ("""
fn f(x: f32[T, K], W: f32[K, K], v: f32[T, K]) -> f32 {
    s = x[0]
    scan t in 0..T {
        seen = x[:t + 1]
        p = softmax(tanh(seen @ W) @ s)
        s = 0.5 * s + p @ v[:t + 1] + x[t]
        y[t] = sum(p^2) + sum(seen[1:] * v[1:t + 1])
    }
    return sum(s^2) + sum(y^2)
}
""", ((4, 2), (2, 2), (4, 2))),
    "a sum over as many as there were turns": ("""
fn f(x: f32[T, K], w: f32[K, N]) -> f32 {
    s = x[0, 0] * 0.0
    scan t in 0..T {
        z[n] = sum[u in 0..t + 1, k](x[u, k] * w[k, n])
        s = s + sum(tanh(z))
        ys[t] = z
    }
    return sum(ys^2) + s
}
""", ((3, 2), (2, 2))),
    "sizes that shrink, in a scan in a scan": ("""
fn f(x: f32[N, M], k: f32[M]) -> f32 {
    s = 0.0
    scan i in 0..N {
        rest = sin(x[i:])
        scan j in 0..M { s = 0.7 * s + sum((rest[:, j:] * expand(k[j:], 0))^2) }
    }
    return s^2
}
""", ((3, 2), (2,))),
    "checkpoint": ("""
fn f(x: f32[T, K], W: f32[K, K]) -> f32 {
    s = x[0]
    scan t in 0..T { s = checkpoint(tanh(s @ W + x[t])) }
    return sum(s^2)
}
""", ((4, 2), (2, 2))),
    "segments": ("""
fn f(x: f32[N, M, K], W: f32[K, K]) -> f32 {
    s = x[0, 1]
    scan i in 0..N {
        scan j in 0..M { s = tanh(s @ W + x[i, j]) }
        s = checkpoint(s)
    }
    return sum(s^2)
}
""", ((2, 3, 2), (2, 2))),
}  # fmt: skip


def with_derivatives(text: str) -> str:
    """`g` gives the gradients of `f` with respect to all its arguments, `h` those of the sum of their squares."""
    head = text[text.index("fn f(") + 5 : text.index(") -> f32 {")]
    names = re.findall(r"(\w+): f32", head)
    results = re.sub(r"(\w+): f32", r"d_\1: f32", head)
    d, a, xs = (", ".join(how + k for k in names) for how in ("d_", "a_", ""))
    squares = " + ".join(f"sum(a_{k}^2)" for k in names)
    return f"""{text}
export g({head}) -> ({results}) {{ ({d}) = grad(f({xs}), [{xs}]) }}
export h({head}) -> ({results}) {{
    ({a}) = grad(f({xs}), [{xs}])
    ({d}) = grad({squares}, [{xs}])
}}
"""


@pytest.mark.parametrize("name", SCALARS)
def test_derivatives(tmp_path, name):
    """First and second ones, compiled, against differences of the function and of its gradient."""
    text, shapes = SCALARS[name]
    net = compiled(tmp_path, with_derivatives(text))
    args, along = [0.7 * normal(*s) for s in shapes], [normal(*s) for s in shapes]

    def moved(h: float) -> list[np.ndarray]:
        return [a + h * d for a, d in zip(args, along, strict=True)]

    def squares(gradients: tuple[np.ndarray, ...]) -> float:
        return sum(float((g**2).sum()) for g in gradients)

    for of, value in ((net.g, lambda a: interpreted(text, a)), (net.h, lambda a: squares(net.g(*a)))):
        slope = sum(float((g * d).sum()) for g, d in zip(of(*args), along, strict=True))
        difference = (value(moved(1e-5)) - value(moved(-1e-5))) / 2e-5
        assert slope == pytest.approx(difference, rel=1e-6, abs=1e-8)


def interpreted(text: str, args: list[np.ndarray]) -> float:
    """`f` by the reference interpreter."""
    graph = Program(Source("p.nn", text), Settings(dtype="f64")).graph("f")
    names = [n.attrs["name"] for n in graph if n.op == "input"]
    return float(evaluate(run(ALWAYS, graph), dict(zip(names, args, strict=True)))[0]["result"])


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_what_is_not_finite_goes_on_to_later_turns_only(tmp_path, dtype):
    path = tmp_path / "sums.nn"
    path.write_text(
        "export sums(x: f32[B, T]) -> f32[B, T] {\n    s = 0.0\n    scan t in 0..T {\n"
        "        s = s + x[:, t]\n        y[b, t] = s[b]\n    }\n    return y\n}\n"
    )
    x = np.ones((4, 6), np.float32 if dtype == "f32" else np.float64)
    x[0, 2], x[1, 3], x[2, 1], x[2, 4], x[3] = np.nan, np.inf, np.inf, -np.inf, -0.0
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(nnc.compile(path, dtype=dtype).sums(x), np.cumsum(x, axis=1))


def test_a_gradient_of_no_turns(tmp_path):
    net = compiled(tmp_path, with_derivatives(SCALARS["weights, a bias, slices, collected values"][0]))
    dx, dU, db, ds = net.g(normal(2, 0, 3), normal(3, 3), normal(3), normal(2, 3))
    assert dx.shape == (2, 0, 3) and not dU.any() and not db.any() and (ds == 1).all()


def test_the_dream_of_the_language_reference(tmp_path):
    net = compiled(
        tmp_path,
        """
model Mlp(x: f32[B, 784]) -> (logits: f32[B, 10]) {
    logits = x |> Dense(16) |> relu |> dropout(p = 0.3) |> Dense(10)
}
export dream(x: f32[1, 784], unit: i32, rate: f32 = 0.1) -> f32[1, 784] {
    scan step in 0..50 { x = x + rate * grad(Mlp(x)[0, unit], x) }
    return x
}
""",
    )
    x = normal(1, 784)
    y = net.dream(x, 3)
    assert net.predict(y)[0, 3] > net.predict(x)[0, 3] + 1
    W1, b1, W2 = (net.params[f"Mlp.{k}"] for k in ("dense_1.W", "dense_1.b", "dense_2.W"))
    wanted = x
    for _ in range(50):
        wanted = wanted + 0.1 * ((wanted @ W1.T + b1 > 0) * W2[3]) @ W1
    np.testing.assert_allclose(y, wanted, atol=1e-10)


# --- layers, chance, state -------------------------------------------------------------------------------------------

LAYERS = """
layer Cell(s: f32[B, H], x: f32[B, D]) -> f32[B, H] {
    weight W: f32[H, D + H] ~ normal(0, 0.5)
    return tanh(concat([x, s], axis = 1) @ W.T)
}
model M(x: f32[B, T, 3]) -> (y: f32[B, 4]) {
    s = uniform(-1, 1, shape = [B, 4]) * 0
    scan t in 0..T { s = s |> Cell(x[:, t]) |> dropout(p = 0.5) }
    y = s |> Dense(4)
}
train M(x, target: f32[B, 4]) {
    loss = mean((y - target)^2)
    optimizer = Adam(lr = 0.01)
}
test "one instance for all turns" { expect count(params(M)) == 4 * 7 + 20 }
"""


def test_a_layer_in_a_scan_is_one_instance(tmp_path):
    net = compiled(tmp_path, LAYERS)
    assert sorted(net.params) == ["M.cell_1.W", "M.dense_1.W", "M.dense_1.b"]
    x, W = normal(2, 5, 3), net.params["M.cell_1.W"]
    s = np.zeros((2, 4))
    for t in range(5):
        s = np.tanh(np.concatenate([x[:, t], s], 1) @ W.T)
    np.testing.assert_allclose(net.predict(x), s @ net.params["M.dense_1.W"].T + net.params["M.dense_1.b"], atol=1e-12)
    history = net.fit(x=normal(32, 5, 3), target=np.tanh(normal(32, 4)), epochs=30)
    assert history[-1]["loss"] < history[0]["loss"]


def test_draws_differ_from_turn_to_turn_and_are_the_same_again(tmp_path):
    net = compiled(
        tmp_path, "fn f(n: f32[T]) -> f32[T, 50] {\n scan t in 0..T { y[t] = uniform(shape = [50]) }\n return y\n}"
    )
    y = net.f(np.zeros(20))
    assert len({tuple(row) for row in y}) == 20 and abs(y.mean() - 0.5) < 0.03
    assert (net.f(np.zeros(20)) == y).all()


def test_gradients_see_the_same_draws_as_values(tmp_path):
    """Dropout in each turn: the numbers differ from turn to turn, and the backward pass draws them again."""
    text = """
fn f(x: f32[T, K], w: f32[K]) -> f32 {
    s = w
    scan t in 0..T { s = (s * w |> dropped) + x[t] }
    return sum(s^2)
}
fn dropped(x) = where(uniform(shape = shape(x)) < 0.5, 0, 2 * x)
export g(x: f32[T, K], w: f32[K]) -> (y: f32, dx: f32[T, K], dw: f32[K]) {
    y = f(x, w)
    (dx, dw) = grad(y, [x, w])
}
"""
    net = compiled(tmp_path, text)
    x, w, dx, dw = normal(6, 20), normal(20), normal(6, 20), normal(20)
    _, gx, gw = net.g(x, w)

    def value(h: float) -> float:
        return net.g(x + h * dx, w + h * dw)[0]

    slope = float((gx * dx).sum() + (gw * dw).sum())
    assert slope == pytest.approx((value(1e-6) - value(-1e-6)) / 2e-6, rel=1e-6)
    assert gx.any(), "not everything is dropped"


def test_the_same_bits_with_two_threads(tmp_path):
    path = tmp_path / "p.nn"
    path.write_text(LAYERS)
    x, target = normal(300, 4, 3), normal(300, 4)
    one, two = (nnc.compile(path, threads=k) for k in (1, 2))
    for net in (one, two):
        net.fit(x=x, target=target, epochs=2)
    for name in one.params:
        assert (one.params[name] == two.params[name]).all(), name


SHARED = """
fn f(x: f32[N, 64], W: f32[5, 64, 64], pick: i32[5]) -> (y: f32[5, N, 64], g: f32[5, 64, 64]) {
    scan j in 0..5 {
        h = x
        scan t in 0..9 { h = tanh(h @ W[j] + x) }
        row = W[j][pick[j]]
        y[j, n, k] = h[n, k] * row[k]
    }
    g = grad(sum(y * y), W)
}
"""


def test_turns_that_threads_share(tmp_path):
    """Turns that carry nothing, each of which takes long: the same bits on any number of threads, also where a turn
    fails; and those of one turn after the other."""
    (tmp_path / "p.nn").write_text(SHARED)
    x, W, pick = normal(200, 64).astype("f4"), normal(5, 64, 64).astype("f4") / 8, np.arange(5, dtype=np.int32)
    nets = [nnc.compile(tmp_path / "p.nn", threads=k) for k in (1, 2, 3, 8)]
    loops = [s for s in stages(SHARED, "f").lowered.entry.steps if hasattr(s, "parallel")]
    assert loops and all(s.parallel and s.share is None for s in loops)
    first = nets[0].f(x, W, pick)
    for j in range(5):
        h = x.astype("f8")
        for _ in range(9):
            h = np.tanh(h @ W[j] + x)
        np.testing.assert_allclose(first[0][j], h * W[j][j], rtol=1e-3, atol=1e-4)
    for net in nets[1:]:
        for _ in range(5):
            assert all((a == b).all() for a, b in zip(first, net.f(x, W, pick), strict=True))
    pick[3] = 64
    for net in nets:
        with pytest.raises(nnc.NncError, match="outside an axis of size"):
            net.f(x, W, pick)


RECURRENT = """
fn f(x: f32[T, B, 24], W: f32[24, 24], V: f32[48, 24], target: f32[T, B, 24]) -> (loss: f32, g: f32[24, 24]) {
    h = 0 * x[0]
    c = 0 * x[0]
    scan t in 0..T {
        z = h @ V.T + concat([x[t], c], axis = 1)
        c = softmax(z[:, 24:], axis = -1) + c / 2
        h = tanh(z[:, :24] @ W) * c
        y[t, b, k] = h[b, k]
    }
    loss = sum((y - target)^2)
    g = grad(loss, W)
}
"""


def test_examples_that_threads_share(tmp_path):
    """Turns that compute each example alone: a thread takes all of them for some, with the same bits."""
    (tmp_path / "p.nn").write_text(RECURRENT)
    loops = [s for s in stages(RECURRENT, "f").lowered.entry.steps if getattr(s, "share", None)]
    assert [s.reverse for s in loops] == [False, True]
    nets = [nnc.compile(tmp_path / "p.nn", threads=k) for k in (1, 2, 3, 8)]
    own = np.random.default_rng(1)
    W, V = (own.standard_normal((n, 24), dtype="f4") / 4 for n in (24, 48))
    for examples in (1, 7, 8, 9, 16, 23, 67, 150):
        x, target = (own.standard_normal((40, examples, 24), dtype="f4") for _ in range(2))
        first = nets[0].f(x, W, V, target)
        for net in nets[1:]:
            for _ in range(3):
                assert all((a == b).all() for a, b in zip(first, net.f(x, W, V, target), strict=True))


TOGETHER = {
    "examples are summed": "h = tanh(h @ W) + mean(h, axis = 0)",
    "and shifted": "h = tanh(concat([h[1:], h[:1]], axis = 0) @ W)",
    "by their number": "h = tanh(h @ W) / (1 + sum(0 * h[:, 0] + 1))",
    "drawn by their position": "h = tanh(h @ W) + uniform(shape = [size(h, 0), 24])",
    "something else is carried": "h = tanh(h @ W) * s\n        s = s / 2",
    "as columns": "h = tanh(W @ h.T).T",
}


@pytest.mark.parametrize("name", TOGETHER)
def test_examples_that_are_not_apart(tmp_path, name):
    text = f"""
fn f(x: f32[B, 24], W: f32[24, 24]) -> (y: f32[B, 24]) {{
    h = x
    s = 1.0
    scan t in 0..40 {{
        {TOGETHER[name]}
    }}
    y = h
}}
"""
    (tmp_path / "p.nn").write_text(text)
    nets = [nnc.compile(tmp_path / "p.nn", threads=k) for k in (1, 2, 8)]
    own = np.random.default_rng(1)
    x, W = own.standard_normal((100, 24), dtype="f4"), own.standard_normal((24, 24), dtype="f4") / 4
    first, *others = (net.f(x, W) for net in nets)
    assert all((first == y).all() for y in others)
    loops = [s for s in stages(text, "f").lowered.entry.steps if getattr(s, "share", None)]
    assert not loops or name == "as columns"


def test_an_index_that_run_time_finds_outside(tmp_path):
    net = compiled(
        tmp_path, "fn f(x: f32[T], n: f32[N]) -> f32 {\n s = 0.0\n scan t in 0..N { s = s + x[t] }\n return s\n}"
    )
    assert net.f(np.ones(3), np.zeros(2)) == 2 and net.f(np.ones(3), np.zeros(0)) == 0
    with pytest.raises(nnc.NncError, match=r"index t is outside an axis of T .*: T is 3, N is 4"):
        net.f(np.ones(3), np.zeros(4))
    net = compiled(
        tmp_path, "fn f(x: f32[T], n: f32[N]) -> f32 {\n s = 0.0\n scan t in N..T { s = s + x[t] }\n return s\n}"
    )
    assert net.f(np.ones(3), np.zeros(3)) == 0
    with pytest.raises(nnc.NncError, match="must not end before it begins"):
        net.f(np.ones(3), np.zeros(4))


def test_rows_that_data_decide_are_checked_in_each_turn(tmp_path):
    net = compiled(
        tmp_path, "fn f(x: f32[K], i: i32[T]) -> f32 {\n s = 0.0\n scan t in 0..T { s = s + x[i[t]] }\n return s\n}"
    )
    assert net.f(np.arange(4.0), np.array([3, 3, 1], np.int32)) == 7
    with pytest.raises(nnc.NncError, match="outside an axis of size"):
        net.f(np.arange(4.0), np.array([3, 4], np.int32))


def test_checkpoint_bounds_the_memory(tmp_path):
    """Without it the backward pass keeps values of every turn, with it what is carried, with segments far less."""

    def bytes_kept(body: str, turns: int) -> int:
        text = f"""
fn f(x: f32[T, K], W: f32[K, K]) -> f32 {{
    s = x[0]
    {body}
    return sum(s^2)
}}
export g(x: f32[T, K], W: f32[K, K]) -> f32[K, K] = grad(f(x, W), W)
"""
        arena = stages(text, "g").lowered.arena
        return substitute(arena, {"T": turns, "K": 64})

    cell = "tanh(tanh(tanh(s @ W + x[{t}]) @ W) @ W)"
    plain = bytes_kept(f"scan t in 0..T {{ s = {cell} }}".replace("{t}", "t"), 4096)
    kept = bytes_kept(f"scan t in 0..T {{ s = checkpoint({cell}) }}".replace("{t}", "t"), 4096)
    inner = f"scan j in 0..64 {{ s = {cell} }}".replace("{t}", "64 * i + j")
    segments = bytes_kept(f"scan i in 0..64 {{\n {inner}\n s = checkpoint(s)\n }}", 4096)
    row = 64 * 4
    assert plain > 7 * 4096 * row and kept < 1.3 * 4096 * row and segments < 0.4 * 4096 * row, (plain, kept, segments)


# --- what is emitted -------------------------------------------------------------------------------------------------


def stages(text: str, entry: str):
    return Session(Source("p.nn", text), Settings(cache=False)).stages(entry)


@pytest.mark.parametrize("name", SCALARS)
def test_what_is_printed_is_read_back(name):
    made = stages(with_derivatives(SCALARS[name][0]), "g")
    for graph in (made.graph, made.backward, made.optimized, made.fused):
        text = print_graph(graph)
        assert print_graph(parse_graph(text)) == text
    assert parse_loops(print_loops(made.lowered.module)) == made.lowered.module


@pytest.mark.parametrize("name", [n for n in VALUES if n != "rows by an index that data decide"])
def test_the_loops_mean_what_the_graph_means(name):
    """The entry's loops and calls, run on bytes in plain Python."""
    text, args, _ = VALUES[name]
    made = stages(text, "f")
    entry, bound = made.lowered.entry, {}
    slots: dict[str, bytearray] = {}
    inputs = {}
    for slot in entry.slots:
        if slot.role == "input":
            inputs[slot.name] = np.asarray(args[len(inputs)], NUMPY[slot.type.dtype])
            bound |= {str(d): n for d, n in zip(slot.type.shape, inputs[slot.name].shape, strict=True) if d != n}
            slots[slot.name] = bytearray(inputs[slot.name].tobytes())
        else:
            shape = [substitute(d, bound) for d in slot.type.shape]
            slots[slot.name] = bytearray(np.zeros(shape, NUMPY[slot.type.dtype]).tobytes())
    assert run_loops(made.lowered.module, entry, bound, slots) == 0
    for key, wanted in evaluate(made.graph, inputs)[0].items():
        got = np.frombuffer(slots[output_slot(key)], wanted.dtype).reshape(wanted.shape)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_equal_scans_are_one():
    text = """
fn cell(x: f32[T, K], W: f32[K, K]) {
    s = x[0]
    scan t in 0..T { s = tanh(s @ W + x[t]) }
    return s
}
fn f(x: f32[T, K], W: f32[K, K]) -> f32[K] {
    y = cell(x, W)
    z = cell(x + 0 * x, W)
    return cell(x, W) * y + z
}
"""
    assert sum(n.op == "scan" for n in stages(text, "f").optimized) == 2


def test_code_does_not_grow_with_the_turns():
    def size(turns: int) -> int:
        text = RNN.replace("0..T", f"0..{turns}").replace("[B, T, D]", f"[B, {turns}, D]")
        return len(print_loops(stages(text, "f").lowered.module).splitlines())

    assert size(10) == size(100_000)


# --- random programs -------------------------------------------------------------------------------------------------

EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "x[t]", "x[3 - t]", "w", "v", "0.5", "a[0]", "(t + 1)"]),
    lambda e: st.one_of(
        st.tuples(e, st.sampled_from("+-*"), e).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        e.map(lambda p: f"tanh({p})"), e.map(lambda p: f"sum({p} * w)"), e.map(lambda p: f"(w * {p}) @ m"),
        e.map(lambda p: f"where(w > 0, {p}, v)"), e.map(lambda p: f"stop_grad({p})"),
    ), max_leaves=6)  # fmt: skip


@settings(max_examples=25)
@given(EXPRESSIONS, EXPRESSIONS, EXPRESSIONS)
def test_a_scan_is_the_loop_written_out(first, second, third):
    """Values and gradients equal those of `repeat`, before and after the passes."""

    def program(loop: str) -> str:
        return f"""
fn f(x: f32[4, 3], w: f32[3], v: f32[3], m: f32[3, 3]) -> f32 {{
    (a, b, y) = (v, w * 0, 0.0)
    {loop} t in 0..4 {{
        a = 0.5 * a + {first}
        b = b * 0 + {second}
        y = y + sum(a * {third} + b)
    }}
    return y + sum(a * b)
}}
export g(x: f32[4, 3], w: f32[3], v: f32[3], m: f32[3, 3]) -> (
    y: f32, dx: f32[4, 3], dw: f32[3], dv: f32[3], dm: f32[3, 3],
) {{
    y = f(x, w, v, m)
    (dx, dw, dv, dm) = grad(y, [x, w, v, m])
}}
"""

    generator = np.random.default_rng(3)
    args = {k: generator.normal(size=s) for k, s in (("x", (4, 3)), ("w", (3,)), ("v", (3,)), ("m", (3, 3)))}

    def results(loop: str) -> list[dict[str, np.ndarray]]:
        graph = run(ALWAYS, Program(Source("p.nn", program(loop)), Settings(dtype="f64")).graph("g"))
        return [evaluate(g, args)[0] for g in (graph, run(REWRITE, graph))]

    plain, rewritten = results("scan")
    (wanted, _) = results("repeat")
    for got in (plain, rewritten):
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-9)


# --- layers in turns -------------------------------------------------------------------------------------------------

TURNS = """
model Net(x: f32[B, 16, 9, 9]) -> (y: f32[B, 10]) {{
    weight W: f32[5, 16, 16, 3, 3] ~ normal(0, 0.1)
    weight V: f32[5, 8, 16] ~ normal(0, 0.3)
    weight gamma: f32[5, 16] ~ normal(1, 0.1)
    bias b: f32[5, 16] ~ normal(0, 0.1)
    state mean_of: f32[5, 16] ~ normal(0, 0.1)
    state var_of: f32[5, 16] ~ uniform(0.5, 1.5)
    h = x
    s = broadcast(0.0, [B, 8])
    {loop} i in 0..5 {{
        z = slide(h, W[i], [1, 1], 1, [1, 1], 1, false)
        scale = gamma[i] / sqrt(var_of[i] + 1e-5)
        h[n, c, p, q] = tanh((z[n, c, p, q] - mean_of[i, c]) * scale[c] + b[i, c])
        s = tanh(s + mean(mean(h, -1), -1) @ V[i].T)
    }}
    y = h |> flatten |> Dense(10)
    y = y + (s |> Dense(10))
}}
train Net(x, label: i32[B]) {{
    loss      = mean(cross_entropy(y, label))
    optimizer = Adam(lr = 1e-2)
}}
"""


@pytest.mark.parametrize(("format", "close"), [("f32", 2e-5), ("bf16", 2e-3), ("i8", 0.1)])
def test_layers_in_turns_are_the_layers_written_out(tmp_path, format, close):
    """Convolutions and products with weights of their own in each turn: predictions of weights in every format, for few
    examples and many, before and after a step that changes what was prepared; and the step. (Of bytes the steps are
    other ones: those of a turn, or those of all; and to bf16 a weight may be rounded the other way.)"""
    nets = []
    for loop in ("scan", "repeat"):
        path = tmp_path / f"{loop}.nn"
        path.write_text(TURNS.format(loop=loop))
        nets.append(nnc.compile(path, cache=False, weights_dtype=format))
    x, label = normal(33, 16, 9, 9).astype("f4"), rng.integers(0, 10, 33)
    for step in range(3):
        for batch in (1, 33):
            a, b = (net.predict(x[:batch]) for net in nets)
            np.testing.assert_allclose(a, b, rtol=close, atol=close)
        losses = [net.train_step(x, label) for net in nets]
        assert losses[0] == pytest.approx(losses[1], rel=2e-5), step
    for path in nets[0].params:
        np.testing.assert_allclose(nets[0].params[path], nets[1].params[path], rtol=1e-3, atol=1e-4)


def test_what_a_turn_makes_of_weights_is_prepared(tmp_path):
    """The weights of each turn lie as kernels read them: Winograd's transforms and panels are made before the call."""
    path = tmp_path / "p.nn"
    path.write_text(TURNS.format(loop="scan"))
    session = Session(Source("p.nn", path.read_text()), Settings())
    made = session.stages("predict")
    assert {v.shape[0] for v in made.prepare.nodes.values() if v.op == "item"} == {5}
    body = next(n for n in made.fused if n.op == "scan").attrs["body"]
    assert all(n.op != "transpose" for n in body)
