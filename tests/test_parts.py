"""Parts of a model by their paths: called, trained by losses and optimisers of their own, frozen, assigned."""

from __future__ import annotations

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import SourceError
from nnc.dsl.render import render

NET = """
layer Body(x: f32[*b, 4], width: int) -> f32[*b, 8] { return x |> Dense(width) |> tanh |> Dense(8) }
model Net(x: f32[B, 4]) -> (y: f32[B, 2]) { y = x |> body: Body(5) |> act: tanh |> head: Dense(2) }
"""
TARGET = "model Target(x: f32[B, 4]) -> (y: f32[B, 2]) { y = x |> body: Body(5) |> head: Dense(2) }\n"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
Y = RNG.normal(size=(6, 2)).astype(np.float32)


def compiled(text: str, **options: object) -> nnc.Model:
    return nnc.compile(text, **options)


def refused(text: str) -> str:
    """What is said of a program that has a fault, in whatever entry."""
    try:
        found = nnc.compile(text).session.program.check()
    except SourceError as e:
        found = e.diagnostics
    assert found
    return "\n".join(render(d) for d in found)


def stepped(net: nnc.Model) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All variables before a step, and after it."""
    before = {p: a.copy() for p, a in net.variables.items()}
    net.train_step(X, Y)
    return before, {p: a.copy() for p, a in net.variables.items()}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {p for p in before if not p.startswith("train/") and "/" not in p and (before[p] != after[p]).any()}


# --- calling a part


def test_a_part_is_called_with_its_parameters_and_configuration() -> None:
    net = compiled(
        NET
        + """
export body(x: f32[N, 4]) -> f32[N, 8] = Net.body(x)
export piped(h: f32[N, 8]) -> f32[N, 2] = h |> Net.head
export whole(x: f32[N, 4]) -> f32[N, 2] = Net.head(tanh(Net.body(x)))
export inner(x: f32[4]) -> f32[8] = x |> Net.body.dense_1 |> tanh |> Net.body.dense_2
"""
    )
    assert sorted(net.params) == sorted(p for p in net.variables if p.startswith("Net."))
    assert np.array_equal(net.whole(X), net.predict(X))
    assert np.allclose(net.piped(np.tanh(net.body(X))), net.predict(X), atol=1e-6)
    assert np.allclose(net.inner(X[0]), net.body(X)[0], atol=1e-6)


def test_a_part_of_a_model_that_nothing_else_calls() -> None:
    net = compiled(NET + TARGET + "export f(x: f32[N, 4]) -> f32[N, 8] = Net.body(x) - Target.body(x)")
    assert {p.split(".")[0] for p in net.params} == {"Net", "Target"}
    assert net.f(X).shape == (6, 8)


def test_parts_inside_scans_repeats_and_shared_layers() -> None:
    net = compiled(
        """
layer Step(s: f32[B, 3], x: f32[B, 3]) -> f32[B, 3] { return tanh((s + x) |> Dense(3)) }
model M(x: f32[B, 2, 3]) -> f32[B, 3] {
    share tie = Dense(3)
    s = broadcast(0.0, [B, 3])
    scan t in 0..2 { s = step: Step(s, x[:, t]) }
    return s |> tie |> tie
}
export one(s: f32[B, 3], x: f32[B, 3]) -> f32[B, 3] = M.step(s, x)
export tied(x: f32[B, 3]) -> f32[B, 3] = M.tie(M.tie(x))
""".replace("s = step: Step(s, x[:, t])", "s = s |> step: Step(x[:, t])")
    )
    x = RNG.normal(size=(5, 2, 3)).astype(np.float32)
    s = net.one(net.one(np.zeros((5, 3), np.float32), x[:, 0]), x[:, 1])
    assert np.allclose(net.tied(s), net.predict(x), atol=1e-6)


def test_a_part_with_state_is_the_same_instance() -> None:
    net = compiled(
        """
model M(x: f32[B, 3]) -> f32[B, 3] { return x |> norm: BatchNorm }
export f(x: f32[B, 3]) -> f32[B, 3] = M.norm(x)
"""
    )
    net.state["M.norm.running_mean"] = np.ones_like(net.state["M.norm.running_mean"])
    assert np.array_equal(net.f(X[:, :3]), net.predict(X[:, :3]))


def test_what_a_call_gave_at_run_time_is_asked_for() -> None:
    text = """
layer Scaled(x: f32[B, 3], n: int, by: f32[B]) -> f32[B, 3] { weight w: f32[3] = 1
    return n * x * w * expand(by, 1) }
model M(x: f32[B, 3], by: f32[B]) -> f32[B, 3] { return x |> part: Scaled(B, by) }
export f(x: f32[B, 3], by: f32[B]) -> f32[B, 3] = M.part(x, {})
"""
    assert "is missing its argument `n`" in refused(text.replace("{}", "by = by"))
    assert "is missing its argument `by`" in refused(text.replace("{}", "2"))
    net = compiled(text.replace("{}", "2, by"))
    by = np.arange(6, dtype=np.float32)
    assert np.array_equal(net.f(X[:, :3], by), 2 * X[:, :3] * by[:, None])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("Net.hed(x)", "unknown layer `Net.hed`"),
        ("Net.act(x)", "`Net.act` is a value, not a layer"),
        ("Net.head.W(x)", "`Net.head.W` is a parameter, not a layer"),
        ("Net.head(x)", "`Net.head.W` is f32[2, 4] here, but f32[2, 8] elsewhere"),
        ("Net.body(x, width = 7)", "`Net.body.dense_1.W` is f32[7, 4] here"),
    ],
)
def test_what_cannot_be_called_is_refused(call: str, told: str) -> None:
    assert told in refused(NET + f"export f(x: f32[N, 4]) -> f32[N, 2] = {call}")


def test_a_model_cannot_call_what_it_has_not_made_yet() -> None:
    assert "unknown layer `M.late`" in refused(
        "model M(x: f32[B, 4]) -> f32[B, 4] { return x |> M.late |> late: Dense(4) }"
    )


# --- groups


def test_groups_of_parts() -> None:
    net = compiled(
        NET
        + """
export sizes() -> i32[4] = [
    count(params(Net.head)), count(weights(Net.body)),
    count(params([Net.body, Net.head])), count(biases(Net.body.dense_1)),
]
"""
    )
    assert list(net.sizes()) == [18, 60, 91, 5]


def test_groups_meet_by_the_paths_within_their_roots() -> None:
    net = compiled(
        NET
        + TARGET
        + """
export apart() -> f32 = sum(abs(params(Net) - params(Target)))
export body() -> f32 = norm(where(params(Net.body) > 0, params(Target.body), 0.0))
export parts() -> f32 = sum(abs(params([Net.head, Net.body]) - params([Target.body, Target.head])))
"""
    )
    a = {p[4:]: v for p, v in net.params.items() if p.startswith("Net.")}
    b = {p[7:]: v for p, v in net.params.items() if p.startswith("Target.")}
    assert a.keys() == b.keys()
    assert np.isclose(net.apart(), sum(np.abs(a[p] - b[p]).sum() for p in a), rtol=1e-5)
    assert np.isclose(net.parts(), net.apart(), rtol=1e-5)
    kept = [b[p][a[p] > 0] for p in a if p.startswith("body.")]
    assert np.isclose(net.body(), np.sqrt(sum((k**2).sum() for k in kept)), rtol=1e-5)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ("params(Net) - params(Net.body)", "`Net.body.dense_1.W` has no partner in the group of `Net.body`"),
        ("params(Net.body.dense_1) - params(Net.head)", "`Net.body.dense_1.W` is f32[5, 4], but its partner"),
        ("params([Net.head, Net.body]) - params(Net.body)", "`Net.head.W` has no partner in the group of `Net.body`"),
        ("weights(Net.head) - params(Net.head)", "`Net.head.b` has no partner in the group of `Net.head`"),
    ],
)
def test_a_member_without_a_partner_is_named(groups: str, told: str) -> None:
    assert told in refused(NET + f"export f() -> f32 = norm({groups})")


# --- several losses


TWO = """
train Net(x, goal: f32[B, 2]) {
    minimize near = mean((y - goal)^2) over params(Net.head) with SGD(lr = 0.5),
        weights(Net.body) with Momentum(lr = 0.1)
    minimize small = mean(Net.body(x)^2) over biases(Net.body) with SGD(lr = 1.0)
    epochs = 2
}
"""


def one(loss: str) -> nnc.Model:
    return compiled(NET + f"train Net(x, goal: f32[B, 2]) {{ loss = {loss}\n optimizer = SGD(lr = 1.0) }}")


def test_each_parameter_learns_from_its_loss_by_its_optimizer() -> None:
    net = compiled(NET + TWO)
    near, small = one("mean((y - goal)^2)"), one("mean(Net.body(x)^2)")
    for other in (near, small):
        for path in other.params:
            other.assign({path: net.params[path]})
    g, h = near.gradients(X, Y), small.gradients(X, Y)
    before, after = stepped(net)
    for path in net.params:
        if path.startswith("Net.head."):
            wanted = before[path] - 0.5 * g[path]
        elif path.endswith(".W"):
            wanted = before[path] - 0.1 * g[path]
        else:
            wanted = before[path] - 1.0 * h[path]
        assert np.allclose(after[path], wanted, atol=1e-6), path
    assert {p for p in net.variables if "/" in p and not p.startswith("train/")} == {
        f"Net.body.dense_{k}.W/d" for k in (1, 2)
    }


def test_the_order_of_the_lines_changes_nothing() -> None:
    head, near, by, small, *tail = TWO.strip().split("\n")
    first = stepped(compiled(NET + TWO))[1]
    second = stepped(compiled(NET + "\n".join([head, small, near, by, *tail])))[1]
    for path in first:
        assert np.array_equal(first[path], second[path]), path


def test_losses_are_metrics_by_name() -> None:
    net = compiled(NET + TWO)
    assert net.train_spec.losses == ("near", "small")
    assert set(net.loss(X, Y)) == {"near", "small"}
    assert set(net.train_step(X, Y)) == {"near", "small"}
    history = net.fit(X, Y)
    assert {"near", "small"} <= set(history[-1])
    assert set(net.evaluate(X, Y)) == {"near", "small"}


def test_gradients_of_several_losses_agree_with_finite_differences() -> None:
    from nnc.runtime.check.gradcheck import grad_check

    assert max(grad_check(compiled(NET + TWO), X, Y).values()) < 1e-6


def test_one_minimize_is_the_short_form() -> None:
    short = one("mean((y - goal)^2)")
    long = compiled(
        NET + "train Net(x, goal: f32[B, 2]) { minimize loss = mean((y - goal)^2) over params with SGD(lr = 1.0) }"
    )
    for _ in range(3):
        assert short.train_step(X, Y) == long.train_step(X, Y)
    for path in short.params:
        assert np.array_equal(short.params[path], long.params[path])


def test_clip_is_asked_for_each_loss() -> None:
    net = compiled(
        NET
        + TWO.replace("epochs = 2", "clip = global_norm(1e-3)")
        .replace("0.5", "1.0")
        .replace("Momentum(lr = 0.1)", "SGD(lr = 1.0)")
    )
    before, after = stepped(net)
    moved = {p: after[p] - before[p] for p in net.params}
    small = [moved[p] for p in moved if p.startswith("Net.body.") and p.endswith(".b")]
    near = [moved[p] for p in moved if not (p.startswith("Net.body.") and p.endswith(".b"))]
    for group in (small, near):
        assert np.isclose(np.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in group)), 1e-3, rtol=1e-2)


def test_the_parameters_of_another_model_can_be_trained() -> None:
    net = compiled(
        NET
        + TARGET
        + """
train Net(x, goal: f32[B, 2]) {
    minimize loss = mean((y - Target(x))^2) over params(Net) with SGD(lr = 0.1), params(Target.head) with SGD(lr = 0.1)
}
"""
    )
    found = changed(*stepped(net))
    assert {p for p in found if p.startswith("Target.")} == {"Target.head.W", "Target.head.b"}
    assert {p for p in found if p.startswith("Net.")} == {p for p in net.params if p.startswith("Net.")}


# --- frozen and assigned


def train(body: str) -> str:
    return f"train Net(x, goal: f32[B, 2]) {{\nloss = mean((y - goal)^2)\noptimizer = SGD(lr = 0.1)\n{body}\n}}"


def test_what_is_frozen_stays() -> None:
    net = compiled(NET + train("freeze = params(Net.body)"))
    assert changed(*stepped(net)) == {"Net.head.W", "Net.head.b"}
    assert set(net.gradients(X, Y)) == {"Net.head.W", "Net.head.b"}


def test_a_target_network_follows() -> None:
    net = compiled(NET + TARGET + train("params(Target) := 0.9 * params(Target) + 0.1 * params(Net)"))
    before, after = stepped(net)
    for path in [p for p in net.params if p.startswith("Target.")]:
        wanted = np.float32(0.9) * before[path] + np.float32(0.1) * after["Net" + path[6:]]
        assert np.allclose(after[path], wanted, atol=1e-7), path


def test_assignments_come_behind_the_step_in_their_order() -> None:
    net = compiled(
        NET
        + TARGET
        + train(
            "params(Net.head) := clip(params(Net.head), -0.01, 0.01)\nTarget.head.b := 2 * Net.head.b\n"
            "params(Target.body) := 0"
        )
    )
    _, after = stepped(net)
    assert np.abs(after["Net.head.W"]).max() <= np.float32(0.01)
    assert np.array_equal(after["Target.head.b"], 2 * after["Net.head.b"])
    assert not after["Target.body.dense_1.W"].any()


def test_assignments_of_own_names_and_of_states() -> None:
    net = compiled(
        """
model M(x: f32[B, 3]) -> (y: f32[B, 3]) { weight w: f32[3] = 1
    y = (x * w) |> norm: BatchNorm }
train M(x) { loss = mean((y - 2 * w)^2)
    optimizer = SGD(lr = 0.1)
    w := clip(w, 0.0, 0.5)
    states(M) := 3 }
"""
    )
    net.train_step(X[:, :3])
    assert net.variables["M.w"].max() <= 0.5
    assert (net.variables["M.norm.running_mean"] == 3).all()


def test_assignments_wait_for_accumulated_steps_and_come_before_averages() -> None:
    net = compiled(
        NET
        + TARGET
        + train(
            "batch = 3\naccumulate = 2\naverage = ema(0.5)\nparams(Net.head) := 0.0 * params(Net.head)\n"
            "Target.head.b := Target.head.b + 1"
        )
    )
    first = net.variables["Target.head.b"].copy()
    net.train_step(X[:3], Y[:3])
    assert np.array_equal(net.variables["Target.head.b"], first)
    start = net.variables["Net.head.W"].copy()
    net.train_step(X[3:], Y[3:])
    assert np.array_equal(net.variables["Target.head.b"], first + 1)
    assert not net.variables["Net.head.W"].any()
    average = net.variables["average/Net.head.W"]
    assert 0.05 < average[0, 0] / start[0, 0] < 0.95
    assert np.allclose(average, start * (average[0, 0] / start[0, 0]))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("freeze = params(Net)", "`freeze` leaves no parameter to train"),
        ("freeze = 3", "`freeze` takes a group of parameters, not the number 3"),
        ("freeze = Net.head", "`freeze` takes a group of parameters"),
        ("params(Net.head) := params(Net.body.dense_1)", "`Net.head.W` is f32[2, 8], but its partner"),
        ("y := 3", "`:=` updates a variable, but `y` is none"),
        ("Net.act := 3", "`:=` updates a variable, but `Net.act` is none"),
        ("relu(x) := 3", "`:=` updates a variable or a group of them"),
        ("minimize a = mean(y) over params with SGD(0.1)", "a `loss` or `minimize`, not both"),
    ],
)
def test_what_a_block_cannot_say_is_refused(body: str, told: str) -> None:
    assert told in refused(NET + train(body))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("minimize a = mean(y) over params with 3", "an optimizer is wanted, not the number 3"),
        ("minimize a = mean(y) over Net with SGD(0.1)", "`over` takes a group of parameters, not the model `Net`"),
        ("minimize a = mean(x) over params with SGD(0.1)", "`a` depends on no parameter that it is minimized over"),
        (
            "minimize a = mean(y) over params with SGD(0.1), biases with SGD(0.1)",
            "`Net.body.dense_1.b` is trained twice",
        ),
        ("minimize a = mean(y) over states with SGD(0.1)", "`a` is minimized over no parameter"),
        ("minimize a = mean(y) over params with SGD(0.1)\npatience = 3", "`patience` watches `loss`"),
        (
            "minimize a = mean(y) over params with SGD(0.1)\noptimizer = SGD(0.1)",
            "each `minimize` names its optimizers",
        ),
        ("minimize a = mean(y) over params with SGD(0.1)\nmetric a = mean(y)", "the metric `a` is defined twice"),
    ],
)
def test_what_minimize_cannot_say_is_refused(body: str, told: str) -> None:
    assert told in refused(NET + f"train Net(x) {{\n{body}\n}}")


def test_a_layer_updates_its_own_variables_only() -> None:
    assert "a layer updates its own variables" in refused(NET + TARGET.replace("{ y", "{ params(Net) := 0\ny"))
