"""A training step in stages (`passes/cut`): what each shard of a batch computes, and what they must not need."""

from __future__ import annotations

import pytest

from nnc.compiler.manifest import ACROSS, FIRST, KEPT, WHOLE
from nnc.compiler.session import Session
from nnc.dsl.errors import NncError
from nnc.dsl.source import Source

NET = """
model Net(x: f32[B, 6]) -> (y: f32[B, 3]) { %s }
train Net(x, label: i32[B]) {
    %s
    epochs = 1
}
"""
DENSE = "y = x |> Dense(4) |> relu |> Dense(3)"
LEARN = "loss = mean(cross_entropy(y, label))\n optimizer = SGD(lr = 0.1)"


def session(model: str = DENSE, train: str = LEARN) -> Session:
    return Session(Source("net.nn", NET % (model, train)))


def graphs(s: Session):
    k = 0
    while True:
        yield (made := s.stages(f"train.{k}").graph)
        if not any(name.startswith(ACROSS) for name, _ in made.outputs):
            return
        k += 1


def test_shards_add_up_gradients_and_metrics_and_the_rest_is_of_the_batch() -> None:
    shard, batch = graphs(session(train=LEARN + "\n metric errors = sum(argmax(y) != label)"))
    assert not shard.updates and not {n.op for n in batch} & {"contract", "random"}
    assert [n.attrs["name"] for n in shard if n.op == "input"] == ["x", "label"]
    names = {name for name, _ in shard.outputs}
    assert len(names) == 2 + 4 and names == {n.attrs["name"] for n in batch if n.op == "input"}
    parameters = {f"Net.dense_{k}.{v}" for k in (1, 2) for v in "Wb"}
    assert {p for p, _ in batch.updates} == {*parameters, "train/t"}
    weighed = {str(n.attrs["size"]) for n in shard if n.op == "size"}
    assert "B" in weighed and {str(n.attrs["size"]) for n in batch if n.op == "size"} == {WHOLE}


def test_draws_count_on_from_the_examples_before_a_shard() -> None:
    shard, _ = graphs(session("y = x |> Dense(4) |> dropout(p = 0.5) |> Dense(3)"))
    (draw,) = (n for n in shard if n.op == "random")
    assert str(draw.attrs["first"]) == f"4*({FIRST})"
    s = session("y = x |> Dense(4) |> dropout(p = 0.5) |> Dense(3)")
    assert FIRST in s.entry("train.0").signature.sizes


def test_what_is_the_same_for_all_examples_is_drawn_once() -> None:
    shard, _ = graphs(session("n = normal(shape = [4])\n y = (x |> Dense(4)) + n |> Dense(3)"))
    assert all("first" not in n.attrs for n in shard if n.op == "random")


def test_a_batch_norm_in_step_meets_twice_on_the_way_and_twice_back() -> None:
    found = list(graphs(session("y = x |> Dense(4) |> BatchNorm(sync = true) |> Dense(3)")))
    assert len(found) == 6
    assert all(any(name.startswith(KEPT) for name, _ in g.outputs) for g in found[:2])
    assert all(not g.updates for g in found[:-1])
    kept = {name for g in found for name, _ in g.outputs if name.startswith(KEPT)}
    assert kept == {n.attrs["name"] for g in found for n in g if n.op == "input" and n.attrs["name"].startswith(KEPT)}


REFUSED = {
    "a loss that is a sum": (DENSE, "loss = sum(cross_entropy(y, label))\n optimizer = SGD(lr = 0.1)", "is a sum over"),
    "a rule that reads examples": (
        "weight W: f32[6, 3] ~ zeros\n y = x @ W",
        "update { W := W + x.T @ y }\n metric m = mean(y)",
        r"`Net.W` is made of the examples themselves",
    ),
    "a state that examples make": (
        "state seen: f32[6] = 0\n when training { seen := x[0] }\n y = x |> Dense(3)",
        LEARN + "\n Net.seen := x[0]",
        r"`Net.seen` is made of the examples themselves",
    ),
    "a draw along the examples": (
        "u = uniform(shape = [4, B])\n y = (x |> Dense(4)) * u.T |> Dense(3)",
        LEARN,
        "has no part for each example",
    ),
    "a mean of what is of another size": (
        "y = x |> Dense(3)",
        LEARN.replace("mean(", "mean(across(x[:, 0])) + mean("),
        "another size in each shard",
    ),
    "shards in a scan": (
        "m = mean(x, axis = 0)\n s = 0 * m\n scan t in 0..3 { s = s + across(m) }\n y = x * s |> Dense(3)",
        LEARN,
        "not in a scan",
    ),
    "a number of shards": (DENSE, LEARN + "\n shards = 6", "a power of two, not 6"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    model, train, message = REFUSED[name]
    with pytest.raises(NncError, match=message) as e:
        list(graphs(session(model, train)))
    assert e.value.code == "E0203"
    assert e.value.diagnostics[0].labels, "where"


def test_where_a_batch_is_one_nothing_meets() -> None:
    plain = session("y = x |> Dense(4) |> BatchNorm(sync = true) |> Dense(3)").stages("train").graph
    assert not any(n.op == "across" for n in plain)
