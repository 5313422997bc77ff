"""Kernels that differ in a few numbers are one: what is given to it, what is not, and that nothing else changes."""

import numpy as np
import pytest

from nnc.compiler.loops.meaning import run
from nnc.compiler.loops.parse import parse_loops
from nnc.compiler.loops.text import print_loops
from nnc.compiler.lowering.alike import alike
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

SUMS = """kernel a(B)(x: f32, mut y: f32) {{
    for p in 0..B parallel if gt(B, 3) {{
        for i in 0..4 {{
            y[i + p * 8] = x[i * 2 + p * 8] + 1.0:f32
        }}
    }}
}}
kernel b(B)(x: f32, mut y: f32) {{
{0}
}}
entry e(B)(input x: f32[B, 8], output y: f32[B, 8], output z: f32[B, 8],) arena 0 {{
    a(B)(slot x, slot y)
    b(B)(slot x, slot z)
}}
"""
FEWER = """    for p in 0..B parallel if gt(B, 5) {
        for i in 0..2 {
            y[i + p * 8] = x[i * 3 + p * 8] + 1.0:f32
        }
    }"""


def results(module, count=5):
    x = np.arange(count * 8, dtype=np.float32)
    slots = {"x": bytearray(x.tobytes()), "y": bytearray(x.nbytes), "z": bytearray(x.nbytes)}
    assert run(module, module.entries[0], {"B": count}, slots) == 0
    return {name: bytes(data) for name, data in slots.items()}


def test_what_differs_is_given():
    module = parse_loops(SUMS.format(FEWER))
    made = alike(module)
    (kernel,) = made.kernels
    assert kernel.sizes == ("B", "n0", "n1", "n2")
    assert [c.sizes[1:] for c in made.entries[0].calls] == [(3, 4, 2), (5, 2, 3)]
    assert "i * n2 + p * 8" in print_loops(made)
    assert parse_loops(print_loops(made)) == made
    assert results(made) == results(module)


def test_a_loop_that_is_always_shared_is_one_of_more_than_minus_one_turn():
    module = parse_loops(SUMS.format(FEWER.replace(" if gt(B, 5)", "")))
    made = alike(module)
    assert [c.sizes[1] for c in made.entries[0].calls] == [3, -1]
    assert results(made) == results(module)


def test_how_long_vectors_are_that_threads_share_is_given():
    module = parse_loops(
        SUMS.replace("for p in 0..B parallel if gt(B, 3)", "for p in 0..16 vector 16 parallel").format(
            FEWER.replace("for p in 0..B parallel if gt(B, 5)", "for p in 0..32 vector 16 parallel")
        )
    )
    assert [c.sizes[1:] for c in alike(module).entries[0].calls] == [(16, 4, 2), (32, 2, 3)]


@pytest.mark.parametrize(
    "body",
    [
        FEWER.replace("1.0:f32", "2.0:f32"),  # what is computed
        FEWER.replace("0..2 {", "0..2 step 2 {"),  # what the code is made of
        FEWER.replace("0..2 {", "0..4 unroll 0 {"),
        FEWER.replace("0..2 {", "0..2 vector 16 {"),
        FEWER.replace("i * 3", "floordiv(i, 3)"),
    ],
)
def test_what_makes_the_code_is_not(body):
    module = parse_loops(SUMS.format(body))
    assert alike(module) is module


@pytest.mark.parametrize("inside", ["floordiv(i, {}) + p * 8", "i + p * 8 + mod(i, {})"])
def test_what_divides_in_a_loop_is_not_given(inside):
    text = SUMS.replace("i * 2 + p * 8", inside.format(2))
    body = FEWER.replace("i * 3 + p * 8", inside.format(3))
    module = parse_loops(text.format(body))
    assert alike(module) is module


@pytest.mark.parametrize("line", ["y[i] = {}0.0:f32", "check gt(div(1.0:f32, {}0.0:f32), 0.0:f32) else 1"])
def test_zeros_of_either_sign_are_apart(line):
    one, other = (line.format(sign) + "\n" for sign in ("", "-"))
    text = SUMS.replace("    for p in", "    " + one + "    for p in").replace("y[i] =", "y[3] =")
    module = parse_loops(text.format("    " + other.replace("y[i] =", "y[3] =") + FEWER))
    assert alike(module) is module


def test_names_of_what_is_given_are_free():
    module = parse_loops(SUMS.format(FEWER).replace("B", "n0"))
    made = alike(module)
    assert made.kernels[0].sizes == ("n0", "n1", "n2", "n3")
    assert parse_loops(print_loops(made)) == made


def test_kernels_that_are_given_a_place_twice_are_apart():
    text = SUMS.format(FEWER).replace("b(B)(slot x, slot z)", "b(B)(slot z, slot z)")
    module = parse_loops(text)
    assert alike(module) is module


def test_layers_of_several_widths_share_their_norms():
    text = """
model M(x: f32[B, 3, 16, 16]) -> (y: f32[B, 16]) {
    h = x |> Conv(128, 3, pad = 1) |> BatchNorm |> relu |> max_pool(2)
    h = h |> Conv(192, 3, pad = 1) |> BatchNorm |> relu |> max_pool(2)
    h = h |> Conv(256, 3, pad = 1) |> BatchNorm |> relu
    y = h |> global_avg_pool |> Dense(16)
}
train M(x, t: f32[B, 16]) {
    loss = mean((y - t)^2)
    optimizer = SGD(lr = 0.1)
}
"""
    made = Session(Source("m.nn", text), Settings(cache=False)).stages("train").lowered.module
    assert sum("n0" in k.sizes for k in made.kernels) >= 2
    assert parse_loops(print_loops(made)) == made
