"""Modules of PyTorch as models of ours: equal outputs, equal training, and the state back again."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.dsl.format import format
from nnc.dsl.parser import parse
from nnc.dsl.source import Source

torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)

from nnc.runtime.pytorch import import_module  # noqa: E402

from .modules import MODULES  # noqa: E402

nn, F = torch.nn, torch.nn.functional
logging.getLogger("torch.__trace").setLevel(logging.ERROR)  # what it tells of a trace is long, and pytest keeps it


def made(name: str) -> tuple[Any, tuple[Any, ...], Any]:
    torch.manual_seed(0)
    module, inputs, axes = MODULES[name]
    return module(), inputs(), axes


def results(module: Any, inputs: tuple[Any, ...]) -> list[Any]:
    y = module(*inputs)
    return list(y.values()) if isinstance(y, dict) else [y]


def train_block(module: Any, shape: list[int], outputs: list[str], more: str = "") -> str:
    """The square of what is off a target, and of all other results; 3 examples stand for any number."""
    axes = ", ".join("B" if k == 0 and n == 3 else str(n) for k, n in enumerate(shape))
    loss = " + ".join([f"mean(({outputs[0]} - target)^2)", *(f"mean({n}^2)" for n in outputs[1:])])
    inputs = ", ".join(inspect.signature(module.forward).parameters)
    settings = f"    loss = {loss}\n    optimizer = SGD(lr = 0.3)\n{more}"
    return f"train Net({inputs}, target: f32[{axes}]) {{\n{settings}}}\n"


def train_both(net: Any, module: Any, inputs: tuple[Any, ...], shape: list[int], steps: int = 2) -> None:
    """Some steps in both programs, of equal losses; their states are equal then, batches counted apart."""
    module.train()
    target = torch.randn(shape)
    sgd = torch.optim.SGD(module.parameters(), lr=0.3)
    for _ in range(steps):
        sgd.zero_grad()
        first, *rest = results(module, inputs)
        loss = ((first - target) ** 2).mean() + sum((r**2).mean() for r in rest)
        loss.backward()
        sgd.step()
        np.testing.assert_allclose(net.train_step(*(x.numpy() for x in inputs), target.numpy()), loss.item(), rtol=1e-5)
    mine, theirs = net.to_state_dict(), module.state_dict()
    assert list(mine) == list(theirs)
    for key, value in theirs.items():
        assert mine[key].dtype == value.dtype and mine[key].shape == value.shape
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_allclose(mine[key].numpy(), value.numpy(), atol=1e-5, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_predicts_and_trains_as_in_torch(name: str) -> None:
    module, inputs, axes = made(name)
    outputs = ["image", "mu", "logvar"] if name == "vae" else ["y"]
    shape = list(results(module.eval(), inputs)[0].shape)
    train = train_block(module, shape, outputs)
    net = nnc.from_torch(module, inputs, axes=axes, train=train, name="Net", seed=0)

    found = net.predict(*(x.numpy() for x in inputs))
    for mine, theirs in zip([found] if len(outputs) == 1 else found, results(module, inputs), strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), atol=1e-5, rtol=1e-5)
    train_both(net, module, inputs, shape)
    found = net.predict(*(x.numpy() for x in inputs))
    for mine, theirs in zip([found] if len(outputs) == 1 else found, results(module.eval(), inputs), strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), atol=1e-4, rtol=1e-4)

    again, *_ = made(name)
    again.load_state_dict(net.to_state_dict())
    for a, b in zip(results(again.eval(), inputs), results(module.eval(), inputs), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-4)

    source = Source("net.nn", net.text)
    assert format(parse(source), source) == net.text
    assert net.text.count("\n") <= 60
    assert not net.manifest.warnings


def test_any_number_of_examples_and_positions() -> None:
    module, (ids,), _ = made("gpt")
    net = nnc.from_torch(module, ids[:1], axes={"ids": {0: "B", 1: "T"}})
    for b, t in ((1, 5), (4, 2), (2, 6)):
        x = torch.randint(0, 11, (b, t))
        np.testing.assert_allclose(net.predict(x.numpy()), module(x).detach(), atol=1e-5)
    lenet, image, _ = made("lenet")
    x = torch.randn(1, 1, 16, 16)
    np.testing.assert_allclose(nnc.from_torch(lenet, image).predict(x.numpy()), lenet(x).detach(), atol=1e-5)


def test_dropout_and_batch_norm_are_layers_whatever_the_mode() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.25))
    for training in (True, False):
        module.train(training)
        text = import_module(module, torch.randn(2, 4)).imported.text
        assert "BatchNorm |> dropout(p = 0.25)" in text
        assert [m.training for m in module.modules()] == [training] * 4
    encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    assert "Attention(2, drop = 0.1)" in import_module(encoder, torch.randn(2, 3, 4)).imported.text
    text = import_module(encoder, torch.randn(2, 3, 4), mode="eval").imported.text
    assert "drop" not in text.replace("dropout1 ", "").replace("dropout2 ", "")


def test_what_is_not_trained_stays_or_is_asked_for() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    module[0].requires_grad_(False)
    x = torch.randn(3, 4)
    with pytest.raises(nnc.ArgumentError, match=r"freeze = params\(\[Net.h0\]\)") as e:
        nnc.from_torch(module, x, train=train_block(module, [3, 2], ["y"]), name="Net")
    assert e.value.code == "E0604"
    freeze = "    freeze = params([Net.h0])\n"
    net = nnc.from_torch(module, x, train=train_block(module, [3, 2], ["y"], freeze), name="Net")
    train_both(net, module, (x,), [3, 2])


class Of(nn.Module):
    """A module that computes a function of itself, of its inputs, and of its parts."""

    def __init__(self, function: Any, **parts: Any):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def test_what_is_not_trained_outside_of_a_layer_is_a_state() -> None:
    gain = nn.Parameter(torch.full((2,), 3.0), requires_grad=False)
    module = Of(lambda m, x: m.gain * m.a(x), a=nn.Linear(4, 2))
    module.gain = gain
    module.a.bias.requires_grad_(False)
    x = torch.randn(3, 4)
    net = nnc.from_torch(module, x, train=train_block(module, [3, 2], ["y"]), name="Net")
    assert "state gain" in net.text and "state a_bias" in net.text
    train_both(net, module, (x,), [3, 2])


def remembering(m: Any, x: Any) -> Any:
    m.last = x.mean(0)
    return x + m.last


def adding_to_a_part(m: Any, x: Any) -> Any:
    y = 2 * x
    y[:, 0] += 1
    return y


def without_gradient(m: Any, x: Any) -> Any:
    y = x + 1
    with torch.no_grad():
        z = y * 2
    return y + z


LSTM = nn.LSTM(4, 3, batch_first=True)
NORM = nn.BatchNorm1d(4)
REFUSED: dict[str, Any] = {
    "noise in training": (lambda m, x: x + torch.randn_like(x) if m.training else x, {}, "randn_like", "mode = "),
    "always dropped": (lambda m, x: F.dropout(x, 0.5), {}, "dropout", "in inference what"),
    "the batch's averages, always": (
        lambda m, x: F.batch_norm(x, m.n.running_mean, m.n.running_var, m.n.weight, m.n.bias, True),
        {"n": NORM},
        "batch_norm",
        "in inference what",
    ),
    "dropped weights, always": (
        lambda m, x: F.scaled_dot_product_attention(*[x[None, None]] * 3, dropout_p=0.1),
        {},
        "scaled_dot_product_attention",
        "in inference what",
    ),
    "digits": (lambda m, x: torch.round(x, decimals=2), {}, "round", "decimals"),
    "without a gradient": (lambda m, x: without_gradient(m, x), {}, "submod", "no_grad"),
    "kept": (remembering, {}, "torch.export", "`self.last` is kept"),
    "a buffer in place": (lambda m, x: x + m.n.add_(1.0), {"n": torch.zeros(4)}, "add_", "in place"),
    "a part in place": (adding_to_a_part, {}, "add_", "in place"),
    "by data": (lambda m, x: x if x.sum() > 0 else -x, {}, "torch.export", "data-dependent"),
    "a first state": (lambda m, x: m.l(x[:, None], (m.h, m.h))[0], {"l": LSTM, "h": torch.ones(1, 2, 3)}, "lstm", "0"),
    "the last cell": (lambda m, x: m.l(x[:, None])[1][1], {"l": LSTM}, "getitem", "result 2"),
    "a norm twice": (lambda m, x: m.n(m.n(x)), {"n": NORM}, "batch_norm", "called twice"),
    "no such operator": (lambda m, x: torch.linalg.inv(x.T @ x), {}, "linalg_inv", "not supported"),
    "doubles": (lambda m, x: m.a(x.double()), {"a": nn.Linear(4, 2).double()}, "state", "float32"),
    "halves": (lambda m, x: x + m.n, {"n": torch.zeros(4, dtype=torch.float16)}, "state", "float16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_listed(name: str) -> None:
    function, parts, operator, reason = REFUSED[name]
    axes: Any = {"x": {}} if name == "a first state" else None
    with pytest.raises(nnc.UnsupportedError) as e:
        nnc.from_torch(Of(function, **parts), torch.randn(2, 4), axes=axes)
    assert e.value.code == "E0634"
    assert any(operator in r.operator and reason in r.reason for r in e.value.refusals), str(e.value)


def test_all_that_is_refused_is_listed_at_once() -> None:
    with pytest.raises(nnc.UnsupportedError) as e:
        nnc.from_torch(Of(lambda m, x: torch.fft.fft(x).real + torch.logdet(x.T @ x)), torch.randn(2, 4))
    assert len(e.value.refusals) >= 2


def elements(m: Any, x: Any) -> tuple[Any, ...]:
    return (
        3 - x, torch.add(x, x, alpha=0.5), 2 / x.abs().clamp(min=1), x**2, x.abs() ** 0.5, x.abs().rsqrt(), -x,
        (x > 0) & (x < 1) | ~(x > 2), torch.where(x > 0, x, 0.0), x.masked_fill(x < 0, 7.0), x.clamp(-1, 1),
        F.hardswish(x), F.hardsigmoid(x), F.hardtanh(x), F.elu(x, 0.5), F.selu(x), F.softplus(x), F.mish(x),
        F.logsigmoid(x), F.softsign(x), F.relu6(x), F.leaky_relu(x, 0.3), F.glu(x), x.maximum(x * x), x.round(),
        torch.zeros_like(x) + torch.ones(4), x + torch.arange(4), (x * 3).long() // 2, x.detach() * x, x.to(torch.bool),
    )  # fmt: skip


def movements(m: Any, x: Any) -> tuple[Any, ...]:
    y = x.view(-1, 2, 2)
    return (
        *x.chunk(2, 1), *x.split([1, 3], 1), *y.unbind(1), torch.stack([x, x], 1), torch.cat([x, x.flip(1)], -1),
        x[:, ::2], x[:, -1], x[:, 1:-1], x.repeat(1, 2), x[..., None].expand(-1, -1, 3), y.permute(2, 0, 1), x.t(),
        y.transpose(1, 2).flatten(1), y.unflatten(1, (1, 2)), y.squeeze(1), F.pad(x, (1, 2), value=3.0), y.tril(),
        y.triu(1), x.narrow(1, 1, 2), y.transpose(0, 1).transpose(0, 1), y.reshape(-1), y @ y,
        torch.einsum("bij,bkj->bik", y, y), torch.bmm(y, y), x.unsqueeze(0), F.interpolate(y, scale_factor=2.0),
    )  # fmt: skip


def reductions(m: Any, x: Any) -> tuple[Any, ...]:
    return (
        x.mean(), x.mean(1, keepdim=True), x.sum((0, 1)), x.sum(0), x.amax(1), x.amin(0, keepdim=True), x.max(),
        *x.max(1), *x.min(0, keepdim=True), x.argmax(1), x.argmax(1, keepdim=True), x.var(1), x.var(0, correction=0),
        x.std(1), x.norm(dim=1), x.cumsum(1), x.prod(1), x.logsumexp(1), x.softmax(0), x.log_softmax(1),
    )  # fmt: skip


@pytest.mark.parametrize("function", [elements, movements, reductions])
def test_an_operator_is_what_it_is_in_torch(function: Any) -> None:
    x = 2 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    net = nnc.from_torch(Of(function), x)
    for k, (mine, theirs) in enumerate(zip(net.predict(x.numpy()), function(None, x), strict=True)):
        assert np.asarray(mine).dtype == theirs.numpy().dtype, k
        np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=1e-5, err_msg=str(k))


@pytest.mark.parametrize(
    ("function", "asked", "fits", "does_not"),
    [
        (lambda m, x: 2 * x if x.shape[0] > 2 else x, "B > 2", 3, 2),
        (lambda m, x: 2 * x if x.shape[0] % 2 == 0 else x, "B % 2 == 0", 2, 3),
        (lambda m, x: x[:3] + x[-3:], "B >= 3", 5, 2),
    ],
)
def test_what_the_code_asks_of_a_size_is_a_condition(function: Any, asked: str, fits: int, does_not: int) -> None:
    module = Of(function)
    net = nnc.from_torch(module, torch.randn(4, 3))
    assert f"require({asked}, " in net.text
    x = torch.randn(fits, 3)
    np.testing.assert_allclose(net.predict(x.numpy()), module(x), atol=1e-6)
    with pytest.raises(nnc.ArgumentError, match="traced for other sizes"):
        net.predict(np.zeros((does_not, 3), np.float32))


def test_what_is_changed_in_place_is_a_new_value_where_nothing_else_sees_it() -> None:
    def changed(m: Any, x: Any) -> Any:
        y = 2 * x
        z = y + 1
        y += 1  # z is of the y before, what is below of the y after
        w = y.view(-1, 2).relu_()
        return w, z + 1

    module, x = Of(changed), torch.randn(2, 4)
    for mine, theirs in zip(nnc.from_torch(module, x).predict(x.numpy()), module(x), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_one_of_the_modes_can_be_chosen() -> None:
    noisy = Of(lambda m, x: m.a(x) + torch.randn_like(x) if m.training else m.a(x), a=nn.Linear(4, 4))
    x = torch.randn(3, 4)
    net = nnc.from_torch(noisy, x, mode="eval")
    np.testing.assert_allclose(net.predict(x.numpy()), noisy.eval()(x).detach(), atol=1e-6)


def test_what_nothing_reads_goes_back_as_it_came() -> None:
    module = Of(lambda m, x: (m.unread(x), m.a(x))[1], a=nn.Linear(4, 4), unread=nn.Linear(4, 2), n=torch.ones(3))
    state = nnc.from_torch(module, torch.randn(3, 4)).to_state_dict()
    assert {k: v.tolist() for k, v in state.items()} == {k: v.tolist() for k, v in module.state_dict().items()}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ((None, torch.zeros(2, 4)), "E0602"),
        ((nn.Linear(4, 2), 3), "E0602"),
        ((nn.Linear(4, 2), (torch.zeros(2, 4), torch.zeros(2))), "E0604"),
        ((nn.Linear(4, 2), {"x": torch.zeros(2, 4)}), "E0604"),
        ((nn.Linear(4, 2), torch.zeros(2, 4), {"x": {0: "B"}}), "E0604"),
        ((nn.Linear(4, 2), torch.zeros(2, 4), {"input": {2: "B"}}), "E0603"),
        ((nn.Linear(4, 2), torch.zeros(2, 4), {"input": {0: 3}}), "E0602"),
        ((nn.Linear(4, 2), torch.zeros(2, 4), None, "test"), "E0603"),
    ],
)
def test_wrong_arguments_are_told(given: tuple[Any, ...], code: str) -> None:
    module, inputs, axes, mode = (*given, *(None, "both")[len(given) - 2 :])
    with pytest.raises(nnc.ArgumentError) as e:
        nnc.from_torch(module, inputs, axes=axes, mode=mode)
    assert e.value.code == code
