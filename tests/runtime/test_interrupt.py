"""Ctrl-C and SIGTERM while native code runs: it ends, and nothing is half done."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import nnc
from nnc.runtime.call import interrupt
from nnc.runtime.call.calls import Call

PAIRS = "fn f(x: f32[N], y: f32[M]) -> f32[N] {\n    z[i] = sum[j](sin(x[i] * y[j]))\n    return z\n}"
MINUTES = """
fn minutes(x: f32[B, D]) -> f32 {
    s = x[0, 0]
    scan t in 0..20000000000 {
        s = tanh(s * 1.5)
    }
    return s
}
"""
NET = """
fn pairs(x: f32[B, 1], y: f32[M, 1]) -> f32 = mean(sin(x @ y.T))
model Net(x: f32[B, 1], y: f32[M, 1]) -> (z: f32) {
    state seen: f32 = 0.0
    weight w: f32 = 1
    seen := seen + 1.0
    z = pairs(w * x, y)
}
train Net(x, y) {
    loss = z
    optimizer = SGD(lr = 0.5)
    epochs = 40
}
"""


@pytest.fixture
def after():
    """Sends this process a signal from another thread after some seconds, unless the test is over."""
    over = threading.Event()

    def given(seconds):
        def send():
            if not over.wait(seconds):
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=send).start()

    yield given
    over.set()


@pytest.fixture(scope="module")
def pairs():
    made = {threads: nnc.function(PAIRS, threads=threads) for threads in (1, 2)}
    for f in made.values():
        f(np.ones(3, np.float32), np.ones(3, np.float32))  # compiles it
    return made


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_that_takes_hours_ends(pairs, after, threads):
    x = np.ones(1 << 20, np.float32)
    after(0.2)
    with pytest.raises(KeyboardInterrupt):
        pairs[threads](x, x)
    few = np.linspace(0, 1, 9, dtype=np.float32)
    found = pairs[threads](few, few)  # nothing is left of it
    np.testing.assert_allclose(found, np.sin(np.outer(few, few)).sum(1), rtol=1e-5)


def test_a_scan_that_takes_hours_ends(after):
    f = nnc.function(
        "fn f(x: f32[4], n: i32[T]) -> f32[4] {\n    s = x\n    scan t in 0..T * T {\n"
        "        s = tanh(s * 1.5)\n    }\n    return s\n}"
    )
    f(np.ones(4, np.float32), np.zeros(2, np.int32))  # compiles it
    after(0.2)
    with pytest.raises(KeyboardInterrupt):
        f(np.ones(4, np.float32), np.zeros(1 << 20, np.int32))


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_prepared_for_an_hour_ends(after, threads):
    """It writes what it prepares, and may all the same be left at any time: it is prepared again."""
    net = nnc.compile(
        """model M(x: f32[4]) -> (y: f32) {
            n = cast(iota(400000), f32)
            y = sum(sin(expand(n, 0) * expand(n, 1))) + x[0]
        }""",
        threads=threads,
    )
    net.entry("predict")
    after(0.2)
    with pytest.raises(KeyboardInterrupt):
        net.predict(np.ones(4, np.float32))


def test_a_handler_that_does_not_raise_lets_the_call_go_on(pairs, after):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        x = np.linspace(0, 1, 20_000, dtype=np.float32)
        after(0.1)
        found = pairs[1](x, x)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]
    np.testing.assert_allclose(found[::5000], np.sin(np.outer(x[::5000], x)).sum(1), rtol=1e-3)


def test_other_threads_are_not_interrupted(pairs):
    """Signals are the main thread's: a call of another one goes on."""
    x, found = np.linspace(0, 1, 20_000, dtype=np.float32), []
    thread = threading.Thread(target=lambda: found.append(pairs[1](x, x)))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    thread.join()
    assert found[0].shape == x.shape and np.isfinite(found[0]).all()


def test_a_word_that_was_meant_for_another_call_is_no_answer():
    """A call of another thread, on a model that the main thread trains."""
    net = nnc.compile("model M(x: f32[N]) -> (y: f32[N]) {\n    y = cumsum(x)\n}")
    x = np.ones(4096, np.float32)
    expected = net.predict(x)
    net.predict(x)
    for hard in (False, True):
        net.workspace.pool.interrupt(soft=True, hard=hard)
        np.testing.assert_array_equal(net.predict(x), expected)


def test_who_was_told_of_signals_before_still_is(pairs, after):
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    before = signal.set_wakeup_fd(sink)
    x = np.ones(1 << 20, np.float32)
    try:
        after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pairs[1](x, x)
        assert os.read(source, 10) == bytes([signal.SIGINT]) and signal.set_wakeup_fd(before) == sink
    finally:
        signal.set_wakeup_fd(before)
        os.close(source)
        os.close(sink)


class Words:
    """The words of a pool."""

    def __init__(self):
        self.set = {}

    def interrupt(self, **words):
        self.set = words


def test_a_signal_is_not_told_to_the_watch_that_comes_next(monkeypatch):
    """Whoever reads what has come may be late."""
    real = interrupt.select

    def late(*arguments):
        found = real(*arguments)
        time.sleep(0.3)
        return found

    monkeypatch.setattr(interrupt, "select", late)
    first, second = Words(), Words()
    for _ in range(2):  # the reader may be in the real one at first
        with pytest.raises(KeyboardInterrupt), interrupt.Watch(first):
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.4)
    with pytest.raises(KeyboardInterrupt), interrupt.Watch(first):
        signal.raise_signal(signal.SIGINT)
    with interrupt.Watch(second):
        time.sleep(0.8)
        assert second.set == {}


def test_a_handler_that_a_callback_sets_lets_training_go_on():
    heard = []
    net = nnc.compile(NET, threads=1)
    x, y = np.ones((3, 1), np.float32), np.ones((3, 1), np.float32)

    def handle(history, _):
        if len(history) == 2:
            signal.signal(signal.SIGINT, lambda *_: heard.append(1))
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    before = signal.getsignal(signal.SIGINT)
    assert len(net.fit(x, y, callbacks=[handle])) == 40 and heard == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_single_step_that_is_interrupted_was_not_made(after):
    """`seen` is written long before the step ends."""
    net = nnc.compile(NET.replace("loss = z", "loss = z + minutes(x)") + MINUTES)
    x, y = np.ones((3, 1), np.float32), np.ones((3, 1), np.float32)
    net.entry("train")
    after(0.2)
    with pytest.raises(KeyboardInterrupt):
        net.train_step(x, y)
    assert net.state["Net.seen"] == 0 and net.params["Net.w"] == 1


def test_a_start_is_kept_from_nothing_and_leaves_zeros_where_it_is_interrupted(monkeypatch):
    kept, watched = [], Call._watched

    def noted(self, run, sized, slots, updated, again=False):
        kept.append(len(updated))
        return watched(self, run, sized, slots, updated, again)

    monkeypatch.setattr(Call, "_watched", noted)
    net = nnc.compile(NET)
    assert kept == [0] and net.params["Net.w"] == 1
    start = net.entry("init")

    def half(sizes, slots, arena, pool):
        start._updated[0][...] = 7
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "_run", half)
    with pytest.raises(KeyboardInterrupt):
        net.reset()
    assert not any(np.any(v) for v in net.variables.values())
    monkeypatch.undo()
    start._run = start.native.run
    net.reset()
    assert net.params["Net.w"] == 1


@pytest.mark.parametrize("grace", [0.0, 60.0])
def test_a_step_that_is_interrupted_was_not_made(monkeypatch, after, grace):
    """`seen` is written long before the step ends. Without grace a step is undone, with it training ends after one."""
    monkeypatch.setattr(interrupt, "GRACE", grace)
    x, y = np.linspace(0, 1, 8000, dtype=np.float32)[:, None], np.linspace(1, 2, 8000, dtype=np.float32)[:, None]
    net, whole = nnc.compile(NET, threads=2), nnc.compile(NET, threads=1)
    net.entry("train")
    with pytest.raises(KeyboardInterrupt):  # in the third step
        net.fit(x, y, callbacks=[lambda history, _: after(0.02) if len(history) == 2 else None])
    done = net.epochs_done + (net.progress.position > 0)  # an epoch is one step
    assert done == (2 if grace == 0 else 3) and net.state["Net.seen"] == done
    whole.fit(x, y, epochs=done)
    assert net.params["Net.w"] == whole.params["Net.w"]
    net.progress.last = done + 1
    net.fit(x, y, resume=True)
    whole.fit(x, y, epochs=1)
    assert net.params["Net.w"] == whole.params["Net.w"] and net.state["Net.seen"] == done + 1


SLOW = """
model Slow(x: f32[B, 2]) -> (y: f32[B]) {
    weight w: f32[2] = 0
    y = x @ w
}
train Slow(x, target: f32[B]) {
    loss = mean((y - target)^2) + minutes(x)
    optimizer = SGD(lr = 0.1)
    data = csv("points.csv", target = "t")
    batch = 4
    epochs = 3
}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_in_a_step_of_minutes_ends_with_a_checkpoint(tmp_path, number):
    (tmp_path / "slow.nn").write_text(SLOW + MINUTES)
    (tmp_path / "points.csv").write_text("a,b,t\n" + "1,2,3\n" * 8)
    command = "from nnc.runtime.cli import entry_point; entry_point()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "train", "slow.nn", "--out", "run"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as p:
        assert p.stdout is not None and "run run\n" in iter(p.stdout.readline, "")
        time.sleep(0.3)
        p.send_signal(number)
        try:
            _, err = p.communicate(timeout=200)
        finally:
            p.kill()
    assert p.returncode == 128 + number and "--resume run" in err and "Traceback" not in err
    assert (tmp_path / "run" / "last.nnw").exists()


@pytest.mark.parametrize("when", ["in a check", "at the end"])
def test_what_comes_while_processes_agree_is_for_the_next_time(when):
    """The others do not know of it: they would wait for one that has left."""
    asked = []

    def agree(number):
        asked.append(number)
        if len(asked) == 1:
            signal.raise_signal(signal.SIGINT)
        return number

    with pytest.raises(KeyboardInterrupt), interrupt.Interrupt(None, agree) as fit:
        fit.check()
        assert asked == [0]
        if when == "in a check":
            fit.check()
            raise AssertionError("not interrupted")
    assert asked == [0, signal.SIGINT]


def test_a_process_of_several_does_not_leave_a_callback_alone():
    ended = []
    with pytest.raises(KeyboardInterrupt), interrupt.Interrupt(None, lambda number: number) as fit:
        for i in range(2):
            fit.tell(signal.raise_signal, signal.SIGINT)
            ended.append(i)
        fit.check()
    assert ended == [0, 1]
