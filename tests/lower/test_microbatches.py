"""Which entries compute each example alone, and how many they run at a time."""

from __future__ import annotations

import pytest

from nnc.compiler.graph.cost import number
from nnc.compiler.graph.examples import examples
from nnc.compiler.lowering import microbatches
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

BODIES = {  # of a function of x: f32[B, N] and t: i32[B, 3], and whether it takes examples apart
    "return tanh(x) * 2": True,
    "return softmax(x)": True,
    "return x - expand(mean(x, axis = 1), 1)": True,
    "return cumsum(x, axis = 1)": True,
    "return sort(x)": True,
    "y[b, k, n] = x[b, n] * x[b, k]  return y": True,
    "return x + expand(take(x, t[:, 0]), 1)": True,
    "return transpose(transpose(x))": True,
    "return reshape(x, [B, N, 1])": True,
    "return concat([x, x], axis = 1)": True,
    "return x[:, 1:]": True,
    "return argmax(x, axis = 1)": True,
    "return flip(x, 1)": True,
    "return x - mean(x, axis = 0)": False,
    "return x - mean(x)": False,
    "return softmax(x, axis = 0)": False,
    "return cumsum(x, axis = 0)": False,
    "return x / B": False,
    "return flip(x, 0)": False,
    "return x[1:]": False,
    "return transpose(x)": False,
    "return x @ transpose(x)": False,
    "return reshape(x, [B * N])": False,
    "return concat([x, x])": False,
    "return sum(x)": False,
    "return sum(x, axis = 0)": False,
    "y[b, n] = x[b, n] + b  return y": False,
    "y[b, n] = x[B - 1 - b, n]  return y": False,
    "y[b in 0..B, n] = x[(b + 1) % B, n]  return y": False,
    "return x[t[:, 0] % 2]": False,
}


def of(text: str, entry: str = "f"):
    return Session(Source("a.nn", text), Settings(cache=False)).stages(entry)


@pytest.mark.parametrize("body", BODIES)
def test_which_functions_take_examples_apart(body):
    made = of(f"fn f(x: f32[B, N], t: i32[B, 3]) {{ {body.replace('  ', chr(10))} }}")
    assert examples(made.optimized) == ("B" if BODIES[body] else None)


NET = """
model Net(x: f32[B, 8, 16, 16]) -> (y: f32[B, 4]) {
    y = x |> Conv(8, 3, pad = 1) |> relu |> Conv(8, 3, pad = 1) |> relu |> flatten |> Dense(WIDTH) |> relu |> Dense(4)
}
train Net(x, target: f32[B, 4]) {
    loss = mean((y - target)^2)
    optimizer = SGD(lr = 0.1)
}
"""


def length(width: int, entry: str = "predict") -> int | None:
    made = of(NET.replace("WIDTH", str(width)), entry).signature.microbatch
    return made[1] if made is not None else None


def test_as_many_as_the_cache_holds_but_enough_for_the_parameters():
    few, many = length(16), length(4096)
    example = 8 * 16 * 16 * 4  # bytes of an activation
    assert few * example <= microbatches.NEAR
    assert many > 10 * few  # whatever the cache holds


@pytest.mark.parametrize("entry", ["train", "loss", "gradients", "evaluate"])
def test_what_sums_over_the_batch_runs_it_at_once(entry):
    assert length(16, entry) is None


def test_what_hands_nothing_on_runs_it_at_once():
    assert of("fn f(x: f32[B, 100]) { return tanh(x) }").signature.microbatch is None


def test_a_condition_on_the_size_of_the_batch_is_one_of_all_of_it():
    body = "y = sort(exp(x))\n return sort(y)"
    assert examples(of(f"fn f(x: f32[B, 64]) {{ {body} }}").optimized) == "B"
    made = of(f"fn f(x: f32[B, 64]) {{ first = x[:4]\n {body} }}").optimized
    assert made.guards and examples(made) is None


def test_the_arena_is_enough_for_the_entry_for_many():
    made = of("""
model Net(x: f32[B, 3, 32, 32]) -> (y: f32[B, 10]) {
    y = x |> Conv(6, 5) |> relu |> max_pool(2) |> Conv(16, 5) |> relu |> max_pool(2) |> flatten |> Dense(10)
}
""", "predict")  # fmt: skip
    first, *more = made.lowered.module.entries
    many = next(e for e in more if e.name == first.many.entry)
    at = {"B": first.microbatches.length}
    assert number(made.lowered.plan.arena, at) < number(many.arena, at) == number(first.arena, at)
    assert made.signature.scratch({"B": 10 * at["B"]}, 3) == 3 * (-(-number(many.arena, at) // 64) * 64)


def test_what_does_not_depend_on_examples_is_not_computed_for_a_few_of_them():
    made = of("""
fn f(x: f32[B, 64, 64], a: f32[512, 512], c: f32[512, 512]) {
    w = max(abs(a @ c))
    y = cumsum(softmax(tanh(x)), axis = 1)
    return sum(y * w, axis = 1)
}
""")  # fmt: skip
    products, example = 2 * 512**3, 20 * 64 * 64
    assert made.signature.microbatch[1] * example > products
