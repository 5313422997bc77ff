"""Calling a compiled model from Python."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import ArgumentError, ArgumentTypeError, NncError, SourceError
from nnc.runtime.model import Model

X = np.float32([[1, 2, 3], [4, 5, 6]])


def test_predict_by_position_and_by_name(net):
    w, b = net.params["Line.W"], net.params["Line.b"]
    np.testing.assert_allclose(net.predict(X), X @ w + b, rtol=1e-6)
    np.testing.assert_array_equal(net.predict(x=X), net.predict(X.tolist()))
    assert net.predict(np.zeros((0, 3))).shape == (0,)


def test_outputs_are_the_callers_own(net):
    first = net.predict(X)
    kept = first.copy()
    second = net.predict(2 * X)
    assert first is not second and first.flags.owndata and np.array_equal(first, kept)


def test_several_outputs_are_a_named_tuple(net):
    result = net.both(X)
    assert type(result).__name__ == "both" and result._fields == ("double", "sum")
    np.testing.assert_array_equal(result.double, 2 * X)
    assert result.sum == 21 and isinstance(result.sum, np.float32)
    np.testing.assert_array_equal(net.both(X, rate=3).double, 3 * X)


def test_batches_are_told_where_to_go(net):
    with pytest.raises(ArgumentError, match=r"`target` is missing(.|\n)*is for `fit` and `evaluate`"):
        net.loss((X, [1, 2]) for _ in range(3))


def test_guards_and_checks_speak(net):
    with pytest.raises(ArgumentError, match=r"E0606.*B must be even"):
        net.both(X[:1])
    with pytest.raises(ArgumentError, match=r"E0607.*rate must not be negative, in both"):
        net.both(X, -1)


@pytest.mark.parametrize(("args", "kwargs", "message"), [
    ((), {}, "loss takes 2 inputs (x, target); `x`, `target` is missing"),
    ((X,), {}, "`target` is missing"),
    ((X, [1, 2], 3), {}, "loss takes 2 inputs (x, target), got 3"),
    ((X,), {"x": X}, "loss got `x` twice"),
    ((X,), {"targt": [1, 2]}, "no input of loss is named `targt`"),
])  # fmt: skip
def test_wrong_arguments(net, args, kwargs, message):
    with pytest.raises(ArgumentError) as caught:
        net.loss(*args, **kwargs)
    assert message in str(caught.value)


def test_did_you_mean(net):
    for use in (lambda: net.params["Line.WW"], lambda: net.gradients(X, [1, 2], wrt=["Line.WW"])):
        with pytest.raises(KeyError, match=r"did you mean `Line.W`\?") as caught:
            use()
        assert isinstance(caught.value, NncError) and caught.value.code == "E0608"


def test_loss_and_gradients(net):
    target = np.float32([1, 2])
    loss = net.loss(X, target)
    assert isinstance(loss, float)
    g = net.gradients(X, target)
    assert list(g) == ["Line.W", "Line.b"]
    net.params["Line.b"] = net.params["Line.b"] + np.float32(1e-2)
    assert net.loss(X, target) - loss == pytest.approx(1e-2 * g["Line.b"], rel=0.05)
    assert list(net.gradients(X, target, wrt="x")) == ["x"]
    assert list(net.gradients(X, target, wrt=["x", "Line.b"])) == ["x", "Line.b"]


def test_a_step_learns_and_counts(net):
    target = np.float32([1, 2])
    losses = [net.train_step(X / 10, target) for _ in range(100)]
    assert losses[-1] < losses[0] / 10 and isinstance(losses[0], float)
    assert net.variables["train/t"] == 100 and net.state["Line.mean"].any() and net.slots["Line.W/m"].any()


def test_taps(net):
    np.testing.assert_allclose(net.taps(X)["Line.dot"], X @ net.params["Line.W"], rtol=1e-6)


def test_params_are_copies_and_assignment_is_checked(net):
    w = net.params["Line.W"]
    with pytest.raises(ValueError, match="read-only"):
        w[0] = 1
    net.params["Line.W"] = [1, 2, 3]
    assert net.params["Line.W"].tolist() == [1, 2, 3] and w.tolist() != [1, 2, 3]
    for wrong in ([1, 2], [[1, 2, 3]], ["a", "b", "c"]):
        with pytest.raises(ArgumentError, match=r"Line\.W"):
            net.params["Line.W"] = wrong
    assert net.params["Line.W"].tolist() == [1, 2, 3]
    assert "Line.W" in net.params and "Line.mean" not in net.params and len(net.params) == 2
    assert list(net.state) == ["Line.mean"] and list(net.slots) == ["Line.W/m", "Line.b/m"]
    with pytest.raises(ArgumentTypeError):
        del net.params["Line.W"]


def test_the_seed_decides_the_start(make):
    a, b, c = make(seed=1), make(seed=1), make(seed=2)
    assert np.array_equal(a.params["Line.W"], b.params["Line.W"])
    assert not np.array_equal(a.params["Line.W"], c.params["Line.W"])
    c.reset(seed=1)
    assert np.array_equal(a.params["Line.W"], c.params["Line.W"])
    assert make().seed == 7  # of the train block


def test_normalisation_begins_as_identity(net):
    assert not net.variables["normalize/x/mean"].any() and (net.variables["normalize/x/scale"] == 1).all()


def test_unknown_attributes_are_attribute_errors(net):
    with pytest.raises(AttributeError, match="'nope'"):
        net.nope  # noqa: B018
    assert "both" in dir(net) and net.exports == ["both"]
    with pytest.raises(ArgumentError, match="no export is named `bth`"):
        net.call("bth")


def test_what_a_model_without_train_block_says(session):
    object.__setattr__(session.manifest, "train", None)
    object.__setattr__(session.manifest, "entries", ("init", "predict"))
    net = Model(session)
    with pytest.raises(ArgumentError, match="Line has no train block, so it has no `loss`"):
        net.loss(X, [1, 2])
    with pytest.raises(ArgumentError, match="no train block"):
        net.fit(X, [1, 2])


def test_pickling_and_copying_are_refused(net):
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ArgumentTypeError, match="cannot be pickled or copied"):
            attempt(net)


def test_repr_says_what_it_is(net):
    assert repr(net) == "<Line(x: f32[B, 3]) -> (y: f32[B]), 4 parameters, f32, 1 thread>"
    assert repr(net.params) == "{'Line.W': f32[3], 'Line.b': f32}"


@pytest.mark.parametrize("threads", [0, -1, 10**6, 1.5, "2", True])
def test_wrong_numbers_of_threads(session, threads):
    with pytest.raises(ArgumentError, match="threads"):
        Model(session, threads=threads)


def test_many_threads_may_call(net):
    expected = net.predict(X)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(200):
            if not np.array_equal(net.predict(X), expected):
                wrong.append("differs")

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_a_child_made_by_fork_gets_its_own_pool(session, net):
    net.predict(X)
    net.workspace.lock.acquire()  # as if another thread were inside a call when the fork happened
    child = os.fork()
    if child == 0:
        try:
            right = net.predict(X).shape == (2,) and len(session.pools) == 2
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    net.workspace.lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_call_reuses_what_it_prepared(net):
    net.predict(X)
    native = net.session.natives["predict"]
    call = net.entry("predict")
    assert call.sized({"B": 2}) is call.sized({"B": 2})
    for n in range(1, 200):
        net.predict(np.zeros((n, 3), np.float32))
    assert max(len(call._sized), len(call._met)) <= 64 and native.calls[-1] == (199,)


def test_what_looks_otherwise_is_looked_at_again(net):
    wanted = net.predict(X)
    np.testing.assert_array_equal(net.predict(X.copy()), wanted)
    frozen, odd = X.copy(), np.zeros(25, np.uint8)[1:].view(np.float32).reshape(2, 3)
    frozen.flags.writeable, odd[:] = False, X
    swapped, wide = X.astype(">f4"), np.repeat(X, 2, axis=1)[:, ::2]
    for same in (np.asfortranarray(X), wide, X.astype(np.float64), swapped, frozen, odd, X.view(np.recarray), [*X]):
        for _ in range(2):
            np.testing.assert_array_equal(net.predict(same), wanted)
    for wrong in (X[:, :2], X[0], np.zeros((2, 3), complex)):
        with pytest.raises(ArgumentError):
            net.predict(wrong)
    np.testing.assert_array_equal(net.predict(X), wanted)


def test_paths_and_names_of_the_wrong_type(net, examples):
    for call in (lambda: net.load(3), lambda: net.save(None), lambda: net.gradients(*examples, wrt=3)):
        with pytest.raises(ArgumentTypeError, match=r"E0602.*must be a"):
            call()


def test_a_function_reports_its_errors_when_it_is_made():
    with pytest.raises(SourceError, match="unknown name `y`"):
        nnc.function("fn f(x: f32[N]) -> f32[N] = x + y")
