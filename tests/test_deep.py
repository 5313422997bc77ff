"""Deep networks: no stage does more for a layer than it does in a shallow one, and none is refused; also where equal
turns are written out (`test_rolled` has what they are otherwise)."""

import cProfile
import pstats
from collections.abc import Callable

import pytest

from nnc.compiler.elaborate import rolled
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

TRAIN = """
train Net(x, y: i32[B]) {
    loss      = mean(cross_entropy(logits, y))
    optimizer = Adam(lr = 1e-3)
}
"""


@pytest.fixture(autouse=True)
def written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolled, "LEAST", 10**9)


def dense(layers: int) -> str:
    return f"""model Net(x: f32[B, 16]) -> (logits: f32[B, 10]) {{
    repeat {layers} {{ x = x |> Dense(16) |> relu }}
    logits = x |> Dense(10)
}}
{TRAIN}"""


def convolution(layers: int) -> str:
    return f"""model Net(x: f32[B, 4, 8, 8]) -> (logits: f32[B, 10]) {{
    repeat {layers} {{ x = x |> Conv(4, 3, pad = 1) |> BatchNorm |> relu }}
    logits = x |> flatten |> Dense(10)
}}
{TRAIN}"""


def transformer(layers: int) -> str:
    return f"""model Net(x: i32[B, T]) -> (logits: f32[B, T, 8]) {{
    h = x |> Embedding(8, 16)
    repeat {layers} {{ h = h |> TransformerBlock(2, causal = true) }}
    logits = h |> LayerNorm |> Dense(8)
}}
{TRAIN.replace("i32[B]", "i32[B, T]")}"""


def session(text: str) -> Session:
    return Session(Source("deep.nn", text), Settings(cache=False))


@pytest.mark.parametrize(("net", "few"), [(dense, 12), (convolution, 6), (transformer, 2)])
def test_calls_grow_with_the_layers(net: Callable[[int], str], few: int) -> None:
    """Calls of Python functions, from the text to LLVM IR: 2 few layers more take twice as many more as few do."""
    counts: list[dict[tuple[str, int, str], int]] = []
    functions: list[int] = []
    for layers in (few, few, 2 * few, 4 * few):  # once more, for what is remembered
        profile, made = cProfile.Profile(), session(net(layers))
        text = profile.runcall(lambda s: s.llvm(s.stages("train")), made)
        made_of_steps = sum(text.count(f"define internal i32 @nnc.{kind}.") for kind in ("part", "turns"))
        functions.append(text.count("define internal") - made_of_steps)
        counts.append({k: v[1] for k, v in pstats.Stats(profile).stats.items()})  # type: ignore[attr-defined]
    n, twice, fourfold = counts[1:]
    assert len({*functions[2:]}) == 1 and functions[2] - functions[1] <= 3, "equal kernels are one"
    assert sum(fourfold.values()) - sum(twice.values()) < 2.05 * (sum(twice.values()) - sum(n.values()))
    for f, calls in fourfold.items():
        a, b = n.get(f, 0), twice.get(f, 0)
        assert calls - b < 2.2 * (b - a) + 40 * few, f"{f} is called {a}, {b}, {calls} times"


def test_two_hundred_layers() -> None:
    made = session(dense(200))
    assert len(made.stages("train").lowered.module.kernels) < 20
    assert made.entry("train").code_size < 200_000


def test_fifty_blocks_are_no_kernel_that_unrolls() -> None:
    made = session(transformer(50))
    stages = made.stages("train")
    assert len(stages.lowered.entry.steps) > 1500
    assert made.llvm(stages).count("nnc.part.") > 40
