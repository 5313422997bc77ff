"""`net.bind`: an entry whose arrays are bound once."""

from threading import Thread

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import NncError

SOURCE = """
model Net(x: f32[B, 3]) -> (logits: f32[B, 2], best: f32[B]) {
    logits = x |> Dense(2)
    best   = max(logits, axis = 1)
}
export double(x: f32[B, 3]) -> f32[B, 3] = 2 * x
export pick(x: f32[N], k: i32) -> f32 = x[k]
train Net(x, y: f32[B, 2]) {
    loss      = mean((logits - y) ^ 2)
    optimizer = SGD(lr = 0.1)
}
"""


@pytest.fixture(scope="module")
def net() -> nnc.Model:
    return nnc.compile(SOURCE)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_it_gives_what_a_call_gives(net):
    x = values(5, 3)
    run = net.bind("predict", x)
    first = run()
    wanted = net.predict(x)
    np.testing.assert_array_equal(first.logits, wanted.logits)
    np.testing.assert_array_equal(first.best, wanted.best)
    x *= 3
    again = run()
    assert again is first and again.logits is first.logits, "the same arrays after every call"
    np.testing.assert_array_equal(first.logits, net.predict(x).logits)


def test_it_sees_new_parameters(net):
    x = values(4, 3)
    run = net.bind("predict", x=x)
    before = run().logits.copy()
    net.train_step(x, values(4, 2))
    np.testing.assert_array_equal(run().logits, net.predict(x).logits)
    assert (run().logits != before).any()


def test_results_go_where_they_are_wanted(net):
    x, out = values(5, 3), np.empty((5, 3), np.float32)
    run = net.bind("double", x, out=out)
    assert run() is out
    np.testing.assert_array_equal(out, 2 * x)
    logits, best = np.empty((5, 2), np.float32), np.empty(5, np.float32)
    assert net.bind("predict", x, out=(logits, best))().best is best


def test_a_read_only_input_is_bound(net):
    x = values(5, 3)
    x.flags.writeable = False
    np.testing.assert_array_equal(net.bind("double", x)(), 2 * x)


def test_a_number_is_an_array_that_changes(net):
    x, k = values(5), np.array(1, np.int32)
    run = net.bind("pick", x, k)
    assert run() == x[1]
    k[...] = 3
    assert run() == x[3]
    k[...] = 7
    with pytest.raises(NncError, match="outside an axis of size N, which is 5"):
        run()


@pytest.mark.parametrize(("make", "message"), [
    (lambda x: [x.astype(np.float64)], r"f64\[5, 3\]"),
    (lambda x: [x[::-1]], "not contiguous"),
    (lambda x: [x.tolist()], "list"),
])  # fmt: skip
def test_what_a_call_would_copy_is_refused(net, make, message):
    with pytest.raises(NncError, match=message) as e:
        net.bind("double", *make(values(5, 3)))
    assert e.value.code == "E0602" and "ascontiguousarray" in str(e.value)


def test_results_overlap_nothing(net):
    x = values(5, 3)
    for name, out in (("double", x), ("double", x[:5]), ("predict", (buffer := values(15), buffer[2:7]))):
        out = (buffer[:10].reshape(5, 2), buffer[8:13]) if name == "predict" else out
        with pytest.raises(NncError, match="overlaps") as e:
            net.bind(name, x, out=out)
        assert e.value.code == "E0604"


@pytest.mark.parametrize(("out", "code"), [
    (np.empty((5, 3)), "E0602"), (np.empty((3, 5), np.float32), "E0601"), ([], "E0604"), ("y", "E0602"),
    (np.empty((5, 6), np.float32)[:, ::2], "E0602"), (np.broadcast_to(np.float32(0), (5, 3)), "E0602"),
])  # fmt: skip
def test_results_have_their_form(net, out, code):
    with pytest.raises(NncError) as e:
        net.bind("double", values(5, 3), out=out)
    assert e.value.code == code


def test_steps_and_unknown_entries_are_not_bound(net):
    with pytest.raises(NncError, match="train_step") as e:
        net.bind("train", values(5, 3), values(5, 2))
    assert e.value.code == "E0609"
    with pytest.raises(NncError, match="duoble"):
        net.bind("duoble", values(5, 3))


def test_threads_take_turns(net):
    xs = [values(100, 3) + k for k in range(4)]
    runs = [net.bind("double", x) for x in xs]
    wrong = []

    def work(run, x):
        for _ in range(200):
            if not np.array_equal(run(), 2 * x):
                wrong.append(x)

    threads = [Thread(target=work, args=pair) for pair in zip(runs, xs, strict=True)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
