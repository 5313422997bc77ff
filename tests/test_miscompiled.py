"""Programs that were compiled to something else than they say, or whose compilation did not end; each stands for its
kind. What is right is said by NumPy, or by the same program said in another way."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest

import nnc

rng = np.random.default_rng(0)


def run(source: str, *args, dtype: str = "f32"):
    return nnc.function(source, dtype=dtype, cache=False)(*args)


# --- a size that is equal by chance does not decide which axis is meant ----------------------------------------------


@pytest.mark.parametrize("size", [3, 8, 17])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_reduction_is_read_transposed_by_what_is_transposed_back(size, named, axis):
    n = "N" if named else size
    source = f"""
    fn f(x: f32[{n}, {n}, {n}], w: f32[{n}, {n}, {n}], v: f32[{n}]) {{
        u = sum(x, axis = {axis})
        t = (u.T + expand(v, 1)).T
        return expand(t, {axis}) * w
    }}"""
    x, w, v = (rng.normal(size=s) for s in ((size,) * 3, (size,) * 3, size))
    want = np.expand_dims((x.sum(axis).T + v[:, None]).T, axis) * w
    np.testing.assert_allclose(run(source, x, w, v, dtype="f64"), want, rtol=1e-12, atol=1e-12)


def test_a_product_of_all_examples_with_all_others_has_two_axes_of_the_size_of_a_batch():
    """The lanes of so few filters go along the batch, of which this has two."""
    net = nnc.compile("""
    model Net(x: f32[B, 1, 6, 6]) -> (loss: f32) {
        h = x |> c: Conv(2, kernel = 3, pad = 1)
        t[n, m, k] = sum[i, j](h[n, k, i, j] * h[m, k, i, j])
        loss = sum(t)
    }
    train Net(x) {
        loss      = loss
        optimizer = SGD(lr = 0.0)
    }""", cache=False)  # fmt: skip
    x = rng.normal(size=(5, 1, 6, 6)).astype(np.float32)
    want = net.predict(x)
    assert net.fit(x, epochs=1)[0]["loss"] == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("reduced", ["mean", "max"])
@pytest.mark.parametrize("between", ["", "tanh"])
def test_a_row_is_centred_by_what_was_transposed_twice(reduced, between):
    source = f"""
    fn f(x: f32[8, 8, 8], v: f32[8]) = x - expand({between}(({reduced}(x, axis = 1).T * expand(v, 1)).T), 1)"""
    x, v = rng.normal(size=(8, 8, 8)), rng.normal(size=8)
    row = (getattr(np, reduced)(x, axis=1).T * v[:, None]).T
    want = x - np.expand_dims(np.tanh(row) if between else row, 1)
    np.testing.assert_allclose(run(source, x, v, dtype="f64"), want, rtol=1e-12, atol=1e-12)


# --- a checkpoint never changes a value or a gradient ----------------------------------------------------------------

BEHIND = """
fn f(x: f32[4, 3]) {
    s = x[0] * 0
    scan t in 1..4 {
        s = tanh(0.5 * s + x[t])
        ys[t] = s + 0.5
    }
    y = RESULT
    return grad(sum(sin(y)), x)
}"""
NESTED = """
fn f(x: f32[4, 3]) {
    s = x[0] * 0
    scan t in 0..4 {
        r = CHECKPOINT(s + x[t])
        scan u in 0..3 { r = tanh(r * 0.7 + x[u]) }
        s = CHECKPOINT(sin(r) + 0.3 * s)
    }
    return grad(sum(CHECKPOINT(s * s)), x)
}"""


@pytest.mark.parametrize("result", ["CHECKPOINT(ys * 2)", "CHECKPOINT(s)", "CHECKPOINT(CHECKPOINT(s) * ys[2])"])
def test_a_checkpoint_behind_a_scan_changes_no_gradient(result):
    x, source = rng.normal(size=(4, 3)), BEHIND.replace("RESULT", result)
    with_it, without = (run(source.replace("CHECKPOINT", name), x, dtype="f64") for name in ("checkpoint", ""))
    assert np.abs(without).max() > 0.1
    np.testing.assert_allclose(with_it, without, rtol=1e-12)


def test_a_checkpoint_around_and_inside_nested_scans_changes_no_gradient():
    x = rng.normal(size=(4, 3))
    with_it, without = (run(NESTED.replace("CHECKPOINT", name), x, dtype="f64") for name in ("checkpoint", ""))
    assert np.abs(without).max() > 0.01
    np.testing.assert_allclose(with_it, without, rtol=1e-12)


def test_a_checkpoint_behind_a_recurrent_layer_lets_its_weights_learn():
    text = """
    model M(x: f32[B, 5, 3]) -> f32[B, 2] { return x |> Lstm(4) |> CHECKPOINT |> last |> Dense(2) }
    fn last(x: f32[B, T, D]) = x[:, -1]
    fn same(x: f32[B, T, D]) = x
    train M(x) {
        loss = mean(output^2)
        optimizer = SGD(lr = 0.1)
    }"""
    x = rng.normal(size=(4, 5, 3)).astype(np.float32)
    with_it, without = (
        nnc.compile(text.replace("CHECKPOINT", name), cache=False).gradients(x) for name in ("checkpoint", "same")
    )
    for name, gradient in without.items():
        np.testing.assert_allclose(with_it[name], gradient, rtol=1e-5, atol=1e-7)
        assert np.abs(gradient).max() > 0


# --- size 0 in every operator ----------------------------------------------------------------------------------------

EMPTY = np.zeros((2, 0, 3), np.float32)
NOTHING = {
    "exp(x)": np.exp, "flip(x, axis = [0])": lambda x: x[::-1], "reshape(x, [3, 0, 2])": lambda x: x.reshape(3, 0, 2),
    "x[:, 0:0, :]": lambda x: x, "sum(x, axis = 1)": lambda x: x.sum(1), "sum(x)": np.sum,
    "x.T": lambda x: x.swapaxes(1, 2), "mean(x, axis = 0)": lambda x: x[0],
    "sum(exp(x), axis = 0)": lambda x: x.sum(0), "prod(x, axis = 1)": lambda x: x.prod(1), "sort(x, axis = 1)": np.sort,
    "concat([x, x], axis = 1)": lambda x: x, "concat([x, x], axis = 0)": lambda x: np.concatenate([x, x]),
    "pad(x, [[0, 0], [1, 2], [0, 0]])": lambda x: np.zeros((2, 3, 3)), "cumsum(x, axis = 1)": lambda x: x,
    "x @ x.T": lambda x: np.zeros((2, 0, 0)), "x.T @ x": lambda x: np.zeros((2, 3, 3)),
    "reshape(transpose(x, [2, 0, 1]), [3, -1]) * 2": lambda x: x.reshape(3, 0), "x[iota(2)]": lambda x: x,
    "softmax(x, axis = 1)": lambda x: x, "softmax(x[:, :, 0], axis = 1)": lambda x: x[..., 0],
    "x / sum(x)": lambda x: x, "grad(sum(x / sum(x)), x)": lambda x: x, "x * 2 + tanh(x)": lambda x: x,
    "uniform(shape = [0, 3]) * 2": lambda x: x[0], "scatter(x[0], iota(0), 2)": lambda x: np.zeros((2, 3)),
    "grad(sum(tanh(x.T @ x)), x)": lambda x: x,
}  # fmt: skip


@pytest.mark.parametrize("expression", NOTHING)
def test_size_zero(expression):
    want = NOTHING[expression](EMPTY)
    got = run(f"fn f(x: f32[2, 0, 3]) = {expression}", EMPTY)
    assert got.shape == np.shape(want) or got.size == 0
    np.testing.assert_array_equal(np.asarray(got).reshape(np.shape(want)), want)


@pytest.mark.parametrize("sizes", [(3, 0), (0, 3), (0, 0), (5, 3)])
def test_a_sum_of_products_over_two_indices_of_which_one_has_no_values(sizes):
    k, m = sizes
    x, y = np.ones((6, k, m), np.float32), np.ones((20, m, k), np.float32)
    source = (
        f"fn f(x: f32[6, {k}, {m}], y: f32[20, {m}, {k}]) {{ z[i, j] = sum[k, l](x[i, k, l] * y[j, l, k])\n return z }}"
    )
    np.testing.assert_array_equal(run(source, x, y), np.full((6, 20), k * m))


def test_a_slice_of_nothing_among_slices_that_lie_side_by_side():
    source = """
    fn f(x: f32[2]) {
        (a, b) = split(x, 2, axis = 0)
        none = x[1:1]
        return grad(sum(a) * 2 + sum(b) * 3 + sum(none), x)
    }"""
    np.testing.assert_array_equal(run(source, np.ones(2, np.float32)), [2, 3])


# --- a check is an effect that no pass drops --------------------------------------------------------------------------

LABELS = {
    "f32[B, 4] = grad(mean(cross_entropy(z, label)), z)", "f32[B, 4] = grad(sum(take(z, label)), z)",
    "f32 {\n unread = z[0][label]\n return sum(z)\n}", "f32 {\n unread = scatter(z, label, 4)\n return sum(z)\n}",
    "f32 {\n s = 0.0\n scan t in 0..3 {\n unread = z[0][label]\n s = s + sum(z) }\n return s\n}",
}  # fmt: skip


@pytest.mark.parametrize("rest", sorted(LABELS))
@pytest.mark.parametrize("optimize", [True, False])
def test_an_index_out_of_range_is_an_error_whoever_reads_it(rest, optimize):
    f = nnc.compile(f"export f(z: f32[B, 4], label: i32[B]) -> {rest}", cache=False, optimize=optimize).f
    z = np.zeros((2, 4), np.float32)
    f(z, np.array([0, 3], np.int32))
    for bad in (4, -1, 100, 2**31 - 1, -(2**31)):
        with pytest.raises(nnc.ArgumentError, match=f"`label` is {bad} in row 1, but must be from 0 to 3"):
            f(z, np.array([0, bad], np.int32))


def test_a_scan_that_only_checks_is_kept():
    f = nnc.function("fn f(x: f32[3], k: i32[4]) -> f32[3] {\n scan t in 0..4 { v = x[k[t]] }\n return x + 1\n}")
    np.testing.assert_array_equal(f(np.zeros(3, np.float32), np.array([0, 2, 1, 0], np.int32)), 1)
    with pytest.raises(nnc.ArgumentError, match="`k` is 3 in row 2"):
        f(np.zeros(3, np.float32), np.array([0, 2, 3, 0], np.int32))


def test_a_step_that_fails_leaves_all_of_a_variable():
    net = nnc.compile(
        """
layer Count(x: f32[4, 10], at: i32[4]) -> (y: f32[4]) {
    state total: f32[4] = 0
    total := total + sum(x, axis = 1) * take(x, at)
    y = total
}
model M(x: f32[4, 10], at: i32[4]) -> (y: f32[4]) { y = Count(x, at) }
""",
        cache=False,
    )
    x = np.ones((4, 10), np.float32)
    net.predict(x, np.int32([0, 9, 3, 4]))
    with pytest.raises(nnc.ArgumentError, match="`at` is 10 in row 3"):
        net.predict(x, np.int32([0, 9, 3, 10]))
    assert net.state["M.count_1.total"].tolist() == [10.0] * 4


# --- every size that is allocated or looped over is 0 or more --------------------------------------------------------

FEWER = (
    "mean(broadcast(x[0] + 1.0, [size(x) - 5, 8]))",
    "sum(concat([x, broadcast(1.0, [size(x) - 5])]))",
    "sum(cast(iota(size(x) - 5), f32))",
    "sum(one_hot(iota(2), size(x) - 5))",
    "sum(eye(size(x) - 5))",
    "sum(scatter(x, iota(size(x)) * 0, size(x) - 4))",
    "sum(uniform(shape = [size(x) - 5]))",
    "sum(x[5:])",
    "sum(reshape(broadcast(x, [2, size(x)]), [2 * size(x)])[10:])",
)


@pytest.mark.parametrize("expression", FEWER)
def test_a_negative_size_is_refused_when_it_is_known(expression):
    f = nnc.function(f"fn f(x: f32[N]) -> f32 = {expression}", cache=False)
    for n in (5, 7):
        assert np.isfinite(f(np.zeros(n, np.float32))) or expression.startswith("mean")
    with pytest.raises(nnc.ArgumentError) as e:
        f(np.zeros(3, np.float32))
    assert e.value.code in ("E0606", "E0607"), e.value


@pytest.mark.parametrize("source", [
    "fn f(x: f32[N], w: f32[K]) -> f32[N] {\n y[i] = sum[k](x[i + k] * w[k])\n return sort(x) + sum(cumsum(y))\n}",
    "fn f(x: f32[N], w: f32[K]) -> f32 {\n y = broadcast(x[0] + 1.0, [N - K, 8])\n return sum(y.T @ y)\n}",
    "fn f(x: f32[N], w: f32[K]) -> f32 {\n s = 0.0\n scan t in 0..N - K { s = s + x[t] }\n return s\n}",
    "fn f(x: f32[N], w: f32[K]) -> f32[N] = grad(mean(x[K:]^2), x)",
])  # fmt: skip
def test_a_window_longer_than_what_it_slides_over_is_refused(source):
    f = nnc.function(source, cache=False)
    f(np.ones(30, np.float32), np.ones(10, np.float32))
    with pytest.raises(nnc.ArgumentError, match="E0606"):
        f(np.ones(10, np.float32), np.ones(30, np.float32))


def test_windows_over_what_has_no_elements():
    source = """fn f(x: f32[N, 0], w: f32[1]) -> f32[N, 0, 2] {
    v = transpose(reshape(x, [N, 2, 0]), [0, 2, 1])
    y[n, j, i] = sum[u](v[n, j, i + u] * w[u])
    return y
}"""
    for n in (0, 1, 20):
        assert nnc.function(source)(np.zeros((n, 0), "f4"), np.ones(1, "f4")).shape == (n, 0, 2)


def test_a_guard_is_asked_for_only_where_a_size_might_be_negative():
    from nnc.compiler.types.sizes import nonnegative, parse_size

    certain = ("B", "4*B + 3", "(H + 1) // 2", "(H - 1) // 2 + 1", "(H + 2) % 4", "4 - B % 4", "H*(B // 2)", "0")
    assert all(nonnegative(parse_size(n)) for n in certain)
    open_ = ("B - 1", "(H - 5) // 2 + 1", "B - H", "4 - B", "B*(H - 1)", "3 - B % 5", "(H - 1) // B")
    assert not any(nonnegative(parse_size(n)) for n in open_)


# --- a single number is a box without axes ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, "N"])
def test_one_element_of_what_is_transposed(rows):
    source = f"fn f(x: f32[{rows}, 3], i: i32) = gather(reshape(transpose(x, [1, 0]), [3 * {rows}]), i % 6, axis = 0)"
    x = rng.normal(size=(2, 3))
    assert run(source, x, np.int32(3), dtype="f64") == x.T.reshape(6)[3]


# --- no compilation runs away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", ["leaky_relu(y - 0.1)", "where(y > 0.5, y * 0.5, y + 0.3)", "elu(y)", "y * y + y"])
def test_compilation_is_linear_in_the_length_of_a_chain(turn):
    source = f"fn f(x: f32[B, 4]) {{\n y = x\n repeat 40 {{ y = {turn} }}\n return y\n}}"
    script = f"import nnc, numpy as np\nprint(nnc.function({source!r}, cache=False)(np.zeros((2, 4), 'f4')).shape)"
    assert bounded(script) == "(2, 4)"


@pytest.mark.parametrize("dtype", ["i32", "i64"])
@pytest.mark.parametrize("divisor", [-3, -1, 1, 4])
@pytest.mark.parametrize("operator", ["%", "//"])
def test_integers_are_divided_as_python_does_it(dtype, divisor, operator):
    x = np.array([-7, -3, -1, 0, 1, 2, 3, 11], dtype.replace("i", "int"))
    script = f"""
import nnc, numpy as np
f = nnc.function("fn f(x: {dtype}[N]) -> {dtype}[N] = x {operator} ({divisor})", cache=False)
print(f(np.array({x.tolist()}, "{x.dtype}")).tolist())"""
    want = x % divisor if operator == "%" else x // divisor
    assert bounded(script) == str(want.tolist())


@pytest.mark.parametrize("operator", ["%", "//"])
@pytest.mark.parametrize("dtype", ["i32", "i64"])
def test_division_by_a_literal_zero_ends(dtype, operator):
    script = f"""
import nnc, numpy as np
f = nnc.function("fn f(x: {dtype}[N]) -> {dtype}[N] = x {operator} 0", cache=False)
print(f(np.array([5, -5, 0], "{dtype.replace("i", "int")}")).tolist())"""
    assert bounded(script) == "[0, 0, 0]"


def bounded(script: str, seconds: int = 20) -> str:
    """What a script prints that may use so many seconds of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=os.environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds)))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HOISTED = """
model Net(x: f32[2, 5, 6]) -> (y: f32[5, 2, 8]) {
    z = transpose(x, [1, 0, 2])
    weight W: f32[32, 6] ~ normal(0, 0.02)
    weight U: f32[32, 8] ~ normal(0, 0.3)
    bias c: f32[64] = 0
    p = z @ W.T + c[:32]
    q = c[32:]
    h = broadcast(cast(0.0, f32), [2, 8])
    m = broadcast(cast(0.0, f32), [2, 8])
    scan t in 0..5 {
        a = p[t] + h @ U.T + q
        m = sigmoid(a[:, 16:24]) * m + sigmoid(a[:, 0:8]) * tanh(a[:, 24:32])
        h = sigmoid(a[:, 8:16]) * tanh(m)
        ys[t, b, k] = h[b, k]
    }
    y = ys
}
"""


def test_what_is_taken_out_of_a_scan_has_a_name_of_its_own():
    """An operand of the scan was called as the node that `hoist` took out, and the compiler fell over it."""
    net = nnc.compile(HOISTED)
    x = np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32)
    plain = nnc.compile(HOISTED, optimize=False)
    plain.assign({path: net.params[path] for path in net.params})
    np.testing.assert_allclose(net.predict(x), plain.predict(x), atol=1e-6)


@pytest.mark.parametrize(("first", "second"), [("s4", "s2"), ("A", "B"), ("k", "v1")])
def test_a_transposing_copy_whatever_its_sizes_are_called(first: str, second: str) -> None:
    """Of some names the products of sizes and indices come in another order, and were refused as our own fault."""
    f = nnc.function(
        f"fn f(x: f32[{first}, {second}, {first}], w: f32[{second}, {first}]) -> f32[{second}, {first}, {second}] {{\n"
        "    y[l, i, j] = sum[k](x[i, j, k] * w[l, k])\n    return y\n}"
    )
    rng = np.random.default_rng(0)
    for a, b in ((4, 2), (37, 19)):
        x, w = rng.normal(size=(a, b, a)).astype(np.float32), rng.normal(size=(b, a)).astype(np.float32)
        np.testing.assert_allclose(f(x, w), np.einsum("ijk,lk->lij", x, w), rtol=1e-4, atol=1e-4)


def test_what_would_be_stored_sooner_may_be_stored_nowhere():
    """A long chain, of which only its beginning is kept: its derivatives are made anew."""
    f = nnc.function("""
fn f(x: f32[1, 1]) {
    y = x
    repeat 11 { y = silu(y) }
    kept = checkpoint(y)
    total = sum(sin(kept * 0.7))
    return (total, grad(total, x))
}
""")
    x = np.full((1, 1), 0.7, np.float32)
    steps = [f(x + d)[0] for d in (np.float32(0.01), np.float32(-0.01))]
    np.testing.assert_allclose(f(x)[1].item(), (steps[0] - steps[1]) / 0.02, rtol=2e-3)
