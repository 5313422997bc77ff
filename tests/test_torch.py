"""The library beside PyTorch: equal values, and equal gradients with respect to input and parameters, in float64.

A case is a `.nn` expression of `x` and the same in PyTorch; `p` are the parameters of the case by name. All cases that
read one input stand in one model, whose loss is the sum of sin(y) over all their results. Without PyTorch the file is
skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnc

torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings("ignore:.*do not fit .* exactly")

INPUTS = {
    "line": ("f32[B, 4, 9]", (2, 4, 9)),
    "plane": ("f32[B, 4, 9, 8]", (2, 4, 9, 8)),
    "space": ("f32[B, 4, 5, 6, 4]", (2, 4, 5, 6, 4)),
    "rows": ("f32[B, 7]", (5, 7)),
    "label": ("f32[B, 7]", (5, 7)),
    "pixels": ("f32[B, 4, 4, 4]", (2, 4, 4, 4)),
    "square": ("f32[B, 4, 4]", (3, 4, 4)),
}
Case = tuple[str, Callable[[Any, dict[str, Any]], Any]]


def conv(dims: int, *args: Any, transposed: bool = False, **kwargs: Any) -> Callable[[Any, dict[str, Any]], Any]:
    function = getattr(F, f"conv{'_transpose' if transposed else ''}{dims}d")
    return lambda x, p: function(x, p["W"], p["b"], *args, **kwargs)


def same(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[Any, dict[str, Any]], Any]:
    """A function without parameters."""
    return lambda x, p: f(x, *args, **kwargs)


def seen(x: Any, by: str, outside: str, corners: bool) -> Any:
    grid = F.affine_grid(1.5 * x[:, 0, :2, :3], [2, 4, 3, 5], corners)
    return F.grid_sample(x, grid, by, outside, corners)


LABEL = torch.tensor([3, 0, 6, 3, 1])
PIXEL = (torch.arange(32).reshape(2, 4, 4) * 5 % 7 - 2).clamp(max=3)  # from -2; as many rows and columns as classes
CLASSES = torch.tensor([1.0, 0.5, 3.0, 0.0], dtype=torch.float64)
TARGET = torch.linspace(0, 1, 35, dtype=torch.float64).reshape(5, 7)
FILTERS = torch.arange(72, dtype=torch.float64).reshape(6, 2, 3, 2).sin()
GIVEN = """
const label = [3, 0, 6, 3, 1]
fn pixel() = minimum(reshape(iota(32), [2, 4, 4]) * 5 % 7 - 2, 3)
fn solved(x) = solve(x, x[:, :, 0:2] + 1)
fn solved_vectors(x) = solve(x, cos(x[:, 0]))
fn whitened(x) = cholesky(x @ transpose(x, [0, 2, 1]) + eye(4))
fn digamma_of(x) = digamma(0.3 + x * x)
fn erfinv_of(x) = erfinv(tanh(x))
fn taken_and_put_back(x) = max_unpool(max_pool(x, 2), max_pool_places(x, 2), [9, 8])
fn frequencies(x) = dft(x[:, :, 0:2])
fn signal(x) = dft(x[:, :, 1:3], backwards = true)
fn half(x) = dft(x[:, :, 0:1], 3)
fn windows(x) = frames(x, 3, 1)
fn seen(x, by: str, outside: str, corners: bool) {
    return grid_sample(x, affine_grid(1.5 * x[:, 0, 0:2, 0:3], [3, 5], corners), by, outside, corners)
}
fn filters() = sin(cast(reshape(iota(72), [6, 2, 3, 2]), f32))
fn deformed_by_nothing(x) {
    return deformed(x, filters(), broadcast(0.0, [2, 24, 5, 8]), 1.0, [2, 1], [2, 1], [2, 2], groups = 2)
}
fn deformed_by_one(x) {
    return deformed(x, filters(), broadcast(1.0, [2, 24, 7, 7]), broadcast(0.5, [2, 12, 7, 7]), groups = 2)
}
fn target() = reshape(iota(35) / 34, [5, 7])
"""

CASES: dict[str, list[Case]] = {
    "line": [
        ("Conv(6, 3, stride = 2, pad = 1)", conv(1, 2, 1)),
        ("Conv(6, 4, dilation = 2, groups = 2)", conv(1, 1, 0, 2, 2)),
        ("Conv(5, 5, pad = \"same\")", conv(1, 1, "same")),
        ("DepthwiseConv(3, multiplier = 2, pad = 2)", conv(1, 1, 2, 1, 4)),
        ("ConvTranspose(6, 4, stride = 3, pad = 1, groups = 2)", conv(1, 3, 1, 0, 2, transposed=True)),
        ("max_pool(4, stride = 3, pad = 2, ceil = true)", same(F.max_pool1d, 4, 3, 2, ceil_mode=True)),
        ("avg_pool(3, stride = 2, pad = 1)", same(F.avg_pool1d, 3, 2, 1, False, False)),
        ("GroupNorm(2)", lambda x, p: F.group_norm(x, 2, p["gamma"], p["beta"])),
        ("adaptive_avg_pool(4)", same(F.adaptive_avg_pool1d, 4)),
        ("adaptive_max_pool(12)", same(F.adaptive_max_pool1d, 12)),
        ("extend([[0, 0], [0, 0], [8, 3]])", same(F.pad, (8, 3), "reflect")),
        ("extend([[0, 0], [0, 0], [9, 9]], \"circular\")", same(F.pad, (9, 9), "circular")),
    ],
    "plane": [
        ("Conv(6, [3, 2], stride = [2, 1], pad = [1, 0])", conv(2, (2, 1), (1, 0))),
        ("Conv(8, 3, pad = 2, dilation = [1, 2], groups = 4)", conv(2, 1, 2, (1, 2), 4)),
        ("Conv(3, 1)", conv(2)),
        ("ConvTranspose(6, [4, 3], stride = 2, pad = 1)", conv(2, 2, 1, transposed=True)),
        ("ConvTranspose(2, 3, dilation = 2)", conv(2, 1, 0, 0, 1, 2, transposed=True)),
        ("max_pool(3, stride = 2)", same(F.max_pool2d, 3, 2)),
        ("max_pool([2, 3], stride = 2, pad = 1, ceil = true)", same(F.max_pool2d, (2, 3), 2, 1, ceil_mode=True)),
        ("avg_pool(3, stride = 2, ceil = true)", same(F.avg_pool2d, 3, 2, 0, True, False)),
        ("max_pool(3, stride = 2, pad = 1, dilation = [1, 2])", same(F.max_pool2d, 3, 2, 1, (1, 2))),
        ("taken_and_put_back",
         lambda x, p: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(9, 8))),
        ("avg_pool(3, stride = 2, pad = 1, count_pad = true)", same(F.avg_pool2d, 3, 2, 1)),
        ("avg_pool([3, 4], stride = 2, pad = 1, ceil = true, count_pad = true)",
         same(F.avg_pool2d, (3, 4), 2, 1, ceil_mode=True)),
        ("adaptive_avg_pool([4, 8])", same(F.adaptive_avg_pool2d, (4, 8))),
        ("adaptive_max_pool([4, 3])", same(F.adaptive_max_pool2d, (4, 3))),
        ("adaptive_max_pool(1)", same(F.adaptive_max_pool2d, 1)),
        ("extend([[0, 0], [0, 0], [3, 2], [0, 6]])", same(F.pad, (0, 6, 3, 2), "reflect")),
        ("extend([[0, 0], [0, 0], [3, 20], [1, 0]], \"replicate\")", same(F.pad, (1, 0, 3, 20), "replicate")),
        ("extend([[0, 0], [0, 0], [3, 2], [0, 6]], by = \"circular\")", same(F.pad, (0, 6, 3, 2), "circular")),
        ("pixel_shuffle(2)", same(F.pixel_shuffle, 2)),
        ("pixel_shuffle(2) |> pixel_unshuffle(2)", same(torch.clone)),
        ("resize([14, 5])", same(F.interpolate, (14, 5), mode="bilinear")),
        ("resize([5, 12], by = \"cubic\", corners = true)",
         same(F.interpolate, (5, 12), mode="bicubic", align_corners=True)),
        ("resize([4, 20], by = \"nearest\")", same(F.interpolate, (4, 20), mode="nearest-exact")),
        ("seen(\"linear\", \"zeros\", false)", same(seen, "bilinear", "zeros", False)),
        ("seen(\"linear\", \"border\", true)", same(seen, "bilinear", "border", True)),
        ("seen(\"linear\", \"reflection\", false)", same(seen, "bilinear", "reflection", False)),
        ("seen(\"nearest\", \"reflection\", true)", same(seen, "nearest", "reflection", True)),
        ("seen(\"cubic\", \"border\", false)", same(seen, "bicubic", "border", False)),
        ("deformed_by_nothing", lambda x, p: F.conv2d(x, FILTERS, None, (2, 1), (2, 1), 2, 2)),
        ("deformed_by_one", lambda x, p: F.conv2d(F.pad(x, (-1, 1, -1, 1)), FILTERS, None, 1, 0, 1, 2) / 2),
        ("global_avg_pool", same(torch.mean, (2, 3))),
        ("local_response_norm(3, 0.3, 0.75, 2.0)", same(F.local_response_norm, 3, 0.9, 0.75, 2.0)),
        ("local_response_norm(5, 0.1, 0.5, 1.0)", same(F.local_response_norm, 5, 0.5, 0.5, 1.0)),
        ("BatchNorm", lambda x, p: F.batch_norm(x, None, None, p["gamma"], p["beta"], True)),
        ("InstanceNorm", lambda x, p: F.instance_norm(x, None, None, p["gamma"], p["beta"])),
        ("LayerNorm", lambda x, p: F.layer_norm(x, (8,), p["gamma"], p["beta"])),
        ("pad([[0, 0], [1, 0], [2, 1], [0, 3]])", same(F.pad, (0, 3, 2, 1, 1, 0))),
    ],
    "space": [
        ("Conv(6, [3, 2, 1], stride = [1, 2, 1], groups = 2)", conv(3, (1, 2, 1), 0, 1, 2)),
        ("ConvTranspose(3, 2, stride = 2)", conv(3, 2, transposed=True)),
        ("max_pool(2, stride = 1)", same(F.max_pool3d, 2, 1)),
        ("adaptive_avg_pool([2, 4, 3])", same(F.adaptive_avg_pool3d, (2, 4, 3))),
        ("avg_pool(2, pad = 1)", same(F.avg_pool3d, 2, 2, 1, False, False)),
        ("BatchNorm(eps = 0.1)", lambda x, p: F.batch_norm(x, None, None, p["gamma"], p["beta"], True, eps=0.1)),
    ],
    "rows": [
        ("Dense(5)", lambda x, p: F.linear(x, p["W"], p["b"])),
        ("RmsNorm", lambda x, p: F.rms_norm(x, (7,), p["gamma"], 1e-5)),
        ("relu", same(F.relu)), ("leaky_relu(0.2)", same(F.leaky_relu, 0.2)), ("elu(0.7)", same(F.elu, 0.7)),
        ("selu", same(F.selu)), ("gelu", same(F.gelu)), ("gelu_tanh", same(F.gelu, approximate="tanh")),
        ("sigmoid", same(torch.sigmoid)), ("silu", same(F.silu)), ("softplus", same(F.softplus)),
        ("log_sigmoid", same(F.logsigmoid)), ("mish", same(F.mish)), ("softsign", same(F.softsign)),
        ("hard_tanh", same(F.hardtanh)), ("hard_sigmoid", same(F.hardsigmoid)),
        ("softmax", same(torch.softmax, -1)), ("log_softmax(axis = 0)", same(torch.log_softmax, 0)),
        ("logsumexp", same(torch.logsumexp, -1)), ("cumsum", same(torch.cumsum, -1)),
        ("sort", lambda x, p: torch.sort(x, -1).values), ("prod(axis = 1)", same(torch.prod, 1)),
        ("top_k(3)[0]", lambda x, p: torch.topk(x, 3).values), ("variance(axis = 1)", same(torch.var, 1, correction=0)),
        ("gather([4, 0, 4])", lambda x, p: x[torch.tensor([4, 0, 4])]), ("flip(1)", same(torch.flip, (1,))),
        ("norm", same(torch.linalg.vector_norm)), ("p_norm(3, axis = 0)", same(torch.linalg.vector_norm, 3, 0)),
        ("std(axis = 1)", same(torch.std, 1, correction=0)), ("tan", same(torch.tan)), ("sinh", same(torch.sinh)),
        ("cosh", same(torch.cosh)), ("asinh", same(torch.asinh)), ("erfc", same(torch.erfc)),
        ("digamma_of", lambda x, p: torch.digamma(0.3 + x * x)), ("lgamma", same(torch.lgamma)),
        ("erfinv_of", lambda x, p: torch.erfinv(torch.tanh(x))),
    ],
    "label": [
        ("cross_entropy(label)", same(F.cross_entropy, LABEL, reduction="none")),
        ("cross_entropy(label, smoothing = 0.2)",
         same(F.cross_entropy, LABEL, reduction="none", label_smoothing=0.2)),
        ("log_softmax |> nll(label)", lambda x, p: F.nll_loss(torch.log_softmax(x, -1), LABEL, reduction="none")),
        ("binary_cross_entropy(target())",
         lambda x, p: F.binary_cross_entropy_with_logits(x, TARGET, reduction="none").sum(1)),
        ("huber(target(), 0.3)", lambda x, p: F.huber_loss(x, TARGET, reduction="none", delta=0.3).sum(1)),
        ("absolute_error(target())", lambda x, p: F.l1_loss(x, TARGET, reduction="none").sum(1)),
        ("squared_error(target())", lambda x, p: 0.5 * F.mse_loss(x, TARGET, reduction="none").sum(1)),
        ("cross_entropy(label, ignore = [3, 1])",
         lambda x, p: F.cross_entropy(x, LABEL.masked_fill(LABEL == 1, 3), reduction="none", ignore_index=3)),
        ("hinge(sign(target() - 0.5))", lambda x, p: torch.relu(1 - torch.sign(TARGET - 0.5) * x).sum(1)),
    ],
    "square": [
        ("matrix_inverse", same(torch.linalg.inv)), ("solved", lambda x, p: torch.linalg.solve(x, x[:, :, :2] + 1)),
        ("determinant", same(torch.linalg.det)), ("windows", lambda x, p: x.unfold(1, 3, 1).transpose(2, 3)),
        ("frequencies", lambda x, p: torch.view_as_real(torch.fft.fft(torch.complex(x[..., 0], x[..., 1])))),
        ("signal", lambda x, p: torch.view_as_real(torch.fft.ifft(torch.complex(x[..., 1], x[..., 2])))),
        ("half", lambda x, p: torch.view_as_real(torch.fft.rfft(x[:, :, 0]))),
        ("solved_vectors", lambda x, p: torch.linalg.solve(x, x[:, 0].cos())),
        ("whitened", lambda x, p: torch.linalg.cholesky(x @ x.mT + torch.eye(4, dtype=torch.float64))),
    ],
    "pixels": [
        ("cross_entropy(maximum(pixel(), 0), axis = 1)",
         lambda x, p: F.cross_entropy(x, PIXEL.clamp(min=0), reduction="none")),
        ("cross_entropy(maximum(pixel(), 0), axis = -1)",
         lambda x, p: F.cross_entropy(x.permute(0, 3, 1, 2), PIXEL.clamp(min=0), reduction="none")),
        ("cross_entropy(pixel(), 0.1, axis = 1, ignore = [-1, -2], weights = [1.0, 0.5, 3.0, 0.0])",
         lambda x, p: F.cross_entropy(x, PIXEL.masked_fill(PIXEL < 0, -1), CLASSES, reduction="none", ignore_index=-1,
                                      label_smoothing=0.1)),
        ("mean_cross_entropy(maximum(pixel(), -1), 0.1, axis = 1, ignore = -1, weights = [1.0, 0.5, 3.0, 0.0])",
         lambda x, p: F.cross_entropy(x, PIXEL.clamp(min=-1), CLASSES, ignore_index=-1, label_smoothing=0.1)),
        ("mean_cross_entropy(maximum(pixel(), -1), axis = 1, ignore = -1)",
         lambda x, p: F.cross_entropy(x, PIXEL.clamp(min=-1), ignore_index=-1)),
        ("log_softmax(axis = 1) |> nll(maximum(pixel(), 0), axis = 1)",
         lambda x, p: F.nll_loss(torch.log_softmax(x, 1), PIXEL.clamp(min=0), reduction="none")),
        ("take(maximum(pixel(), 0), axis = 2)",
         lambda x, p: x.gather(2, PIXEL.clamp(min=0).unsqueeze(2)).squeeze(2)),
    ],
}  # fmt: skip


def program(name: str) -> str:
    """One model of all cases on an input; a case that is a layer is labelled, so that its parameters can be found."""
    type_ = INPUTS[name][0]
    lines = []
    for k, (call, _) in enumerate(CASES[name]):
        label = f"c{k}: " if call[0].isupper() else ""
        if call.endswith("[0]"):
            lines.append(f"    y{k} = (x |> {call[:-3]})[0]")
        else:
            lines.append(f"    y{k} = x |> {label}{call}")
    results = ", ".join(f"y{k}: f32[*s{k}]" for k in range(len(lines)))
    loss = " + ".join(f"sum(sin(y{k}))" for k in range(len(lines)))
    return (f"{GIVEN}\nmodel Net(x: {type_}) -> ({results}) {{\n" + "\n".join(lines) + "\n}\n"
            f"train Net(x) {{\n    loss = {loss}\n    optimizer = SGD(0.0)\n}}\n")  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    rng = np.random.default_rng(0)
    net = nnc.compile(program(name), dtype="f64")
    array = rng.standard_normal(INPUTS[name][1])
    for path in net.params:
        net.params[path] = rng.standard_normal(net.params[path].shape)
    x = torch.tensor(array, requires_grad=True)
    params = {path: torch.tensor(net.params[path], requires_grad=True) for path in net.params}
    values, total = net.predict(array), torch.zeros((), dtype=torch.float64)
    for k, (call, function) in enumerate(CASES[name]):
        mine = {path.rpartition(".")[2]: t for path, t in params.items() if path.startswith(f"Net.c{k}.")}
        want = function(x, mine)
        total = total + torch.sin(want).sum()
        if not call.startswith("BatchNorm"):  # to predict, it takes its running averages
            np.testing.assert_allclose(values[k], want.detach().numpy(), rtol=1e-9, atol=1e-9, err_msg=call)
    total.backward()
    assert net.loss(array) == pytest.approx(total.item(), abs=1e-7)
    gradients = net.gradients(array, wrt=["x", *params])
    for path, t in {"x": x, **params}.items():
        case = next((c for k, (c, _) in enumerate(CASES[name]) if path.startswith(f"Net.c{k}.")), "x")
        np.testing.assert_allclose(gradients[path], t.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=f"{path} of {case}")


def test_batch_norm_remembers_what_torch_remembers() -> None:
    net = nnc.compile(
        "model Net(x: f32[B, 3, 4, 5]) -> (y: f32[B, 3, 4, 5]) { y = x |> BatchNorm }\n"
        "train Net(x) {\n    loss = sum(y)\n    optimizer = SGD(0.0)\n}\n", dtype="f64")  # fmt: skip
    theirs = torch.nn.BatchNorm2d(3, dtype=torch.float64)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal((2, 3, 4, 5)) * 3 + 1
        net.train_step(x)
        theirs(torch.tensor(x))
    theirs.eval()
    np.testing.assert_allclose(net.state["Net.batchnorm_1.running_mean"], theirs.running_mean, rtol=1e-12)
    np.testing.assert_allclose(net.state["Net.batchnorm_1.running_var"], theirs.running_var, rtol=1e-12)
    np.testing.assert_allclose(net.predict(x), theirs(torch.tensor(x)).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [
    ("SGD(0.05)", lambda p: torch.optim.SGD(p, 0.05)),
    ("Velocity(0.05, momentum = 0.8)", lambda p: torch.optim.SGD(p, 0.05, momentum=0.8)),
    ("Velocity(0.05, momentum = 0.8, nesterov = true)",
     lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True)),
    ("Adam(0.02)", lambda p: torch.optim.Adam(p, 0.02)),
    ("Adam(0.2, beta2 = 0.5, amsgrad = true)", lambda p: torch.optim.Adam(p, 0.2, (0.9, 0.5), amsgrad=True)),
    ("AdamW(0.2, beta2 = 0.5, decay = 0.1, amsgrad = true)",
     lambda p: torch.optim.AdamW(p, 0.2, (0.9, 0.5), weight_decay=0.1, amsgrad=True)),
    ("AdamW(0.02, decay = 0.1)", lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.1)),
])  # fmt: skip
def test_optimizers_walk_the_same_path(ours: str, theirs: Any) -> None:
    net = nnc.compile(
        "model Net(x: f32[B, 3]) -> (y: f32[B, 2]) { y = tanh(x |> Dense(2, bias = false)) }\n"
        f"train Net(x) {{\n    loss = mean((y - 0.3)^2)\n    optimizer = {ours}\n}}\n", dtype="f64")  # fmt: skip
    W = torch.tensor(net.params["Net.dense_1.W"], requires_grad=True)
    optimizer = theirs([W])
    rng = np.random.default_rng(1)
    for _ in range(6):
        x = rng.standard_normal((4, 3))
        net.train_step(x)
        optimizer.zero_grad()
        ((torch.tanh(torch.tensor(x) @ W.T) - 0.3) ** 2).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(net.params["Net.dense_1.W"], W.detach(), rtol=1e-9, atol=1e-12)
