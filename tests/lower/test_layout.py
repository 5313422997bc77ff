"""Networks of windows in the order their kernels like: steps of training against the interpreter, in both orders (lanes
along filters or along the batch), for batches that fill the lanes or do not, the same bits on two targets."""

import numpy as np
import pytest

from nnc.compiler import passes
from nnc.compiler.elaborate import Program
from nnc.compiler.graph.interpret import evaluate
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.passes.layout import batch_in_lanes
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source

LAYERS = {
    "same": "h = x |> Conv({n}, 3, pad = 1) |> relu |> max_pool(2) |> Conv({m}, 3) |> tanh",
    "stride": "h = x |> Conv({n}, 3, stride = 2, pad = 1) |> BatchNorm |> relu |> Conv({m}, [3, 2], stride = [1, 2])",
    "overlap": "h = x |> Conv({n}, 3) |> max_pool(3, stride = 2, pad = 1) |> Conv({m}, 1) |> avg_pool(2, stride = 1)",
    "groups": "h = x |> Conv({n}, 2, dilation = 2) |> Conv({m}, 3, groups = 2, pad = 1) |> DepthwiseConv(2)",
    "adjoint": "h = x |> Conv({n}, 3, stride = 3) |> ConvTranspose({m}, 3, stride = 2, pad = 1) |> relu",
    "branches": "a = x |> Conv({n}, 3, pad = 1)\n    b = x |> Conv({n}, 1)\n"
                "    h = concat([a[:, :, ::2], b[:, :, ::2]], axis = 1) |> Conv({m}, 2)",
}  # fmt: skip


def step(layers, n, m):
    text = f"""
model Net(x: f32[B, 3, 11, 10]) -> (y: f32[B, 3]) {{
    {layers.format(n=n, m=m)}
    y = h |> flatten |> Dense(3)
}}
train Net(x, target: f32[B, 3]) {{
    loss = mean((y - target)^2)
    optimizer = SGD(lr = 0.1)
    batch = 4
    epochs = 1
}}
"""
    program = Program(Source("net.nn", text), Settings())
    graph = passes.run(passes.ALWAYS, program.graph("train"))
    return graph, passes.run(passes.OPTIMIZE, graph)


def arrays(graph, batch, rng):
    inputs, params = {}, {}
    for n in graph:
        if n.op in ("input", "param"):
            shape = [k if isinstance(k, int) else batch for k in n.shape]
            value = rng.standard_normal(shape) * 0.5 if n.dtype == "f32" else np.full(shape, 1)
            into = inputs if n.op == "input" else params
            into[n.attrs["name" if n.op == "input" else "path"]] = np.asarray(value, NUMPY[n.dtype])
    return inputs, params


def close(got, wanted):
    assert got.keys() >= wanted.keys()
    for name, value in wanted.items():
        scale = np.max(np.abs(value), initial=1.0, where=np.isfinite(value))
        np.testing.assert_allclose(got[name], value, rtol=2e-4, atol=2e-4 * scale, err_msg=name)


@pytest.mark.parametrize(("filters", "along"), [((6, 4), "batch"), ((32, 64), "filters")])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_step_in_any_order(layers, filters, along, compiled):
    graph, optimized = step(layers, *filters)
    rewritten = passes.run(passes.REWRITE, graph)
    assert (batch_in_lanes(rewritten) is not None) == (along == "batch")
    assert "transpose" in {n.op for n in passes.run((passes.layout,), rewritten)}
    native, v3 = compiled(optimized), compiled(optimized, "x86-64-v3")
    for batch in (1, 3, 16, 37) if along == "batch" else (1, 3):
        inputs, params = arrays(graph, batch, np.random.default_rng(batch))
        wanted = evaluate(graph, inputs, params)
        got = native(inputs, params, {"B": batch})
        for a, b in zip(got, wanted, strict=True):
            close(a, b)
        other = v3(inputs, params, {"B": batch})
        for a, b in zip(got, other, strict=True):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_an_empty_batch(compiled):
    for filters in ((6, 4), (16, 32)):
        graph, optimized = step(LAYERS["same"], *filters)
        inputs, params = arrays(graph, 0, np.random.default_rng(0))
        _, after = compiled(optimized)(inputs, params, {"B": 0})
        assert after["Net.conv_1.W"].shape == params["Net.conv_1.W"].shape
