"""Work shared among processes: everything is made once, whatever becomes of a child."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nnc.compiler.native.cache import SUFFIX
from nnc.compiler.native.share import share
from nnc.compiler.session import Session
from nnc.dsl.errors import SourceError
from nnc.dsl.source import Source

PROGRAM = """
model Net(x: f32[B, 4]) -> (y: f32[B, 3]) {
    y = x |> Dense(8) |> tanh |> Dense(3)
}
train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    optimizer = Adam(0.01)
}
"""


def by_whom(names):
    return {name: f"{name} {os.getpid()}".encode() for name in names}


def children():
    """The processes that this one has begun and not waited for."""
    return {*Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.fixture(autouse=True)
def alone():
    assert threading.active_count() == 1  # or nothing here would be shared
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_everything_is_made(count, processes):
    names = [f"n{k}" for k in range(count)]
    made = share(by_whom, names, processes)
    assert {name: data.split()[0].decode() for name, data in made.items()} == {name: name for name in names}
    assert len({data.split()[1] for data in made.values()}) <= processes


def test_each_takes_what_is_left():
    parent = os.getpid()
    took, take = os.pipe()
    done, do = os.pipe()

    def work(names):
        made = {}
        for k, name in enumerate(names):
            if os.getpid() == parent and k == 0:  # busy with its first until the child has done both others
                os.write(take, b"x")
                os.read(done, 1)
            elif k == 0:
                os.read(took, 1)
            elif os.getpid() != parent:
                os.write(do, b"x")
            made |= by_whom([name])
        return made

    whom = [int(data.split()[1]) for data in share(work, ["a", "b", "c"], 2).values()]
    assert whom.count(parent) == 1
    for pipe in (took, take, done, do):
        os.close(pipe)


@pytest.mark.parametrize("end", [lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 / 0])
def test_what_a_child_did_not_make_is_made_here(end, capfd):
    parent = os.getpid()
    began, begin = os.pipe()

    def work(names):
        made = {}
        for name in names:
            if os.getpid() != parent:
                os.write(begin, b"xx")
                end()
            elif not made:
                os.read(began, 1)  # once the child has taken one
            made |= by_whom([name])
        return made

    assert share(work, ["a", "b", "c"], 2) == by_whom("abc")
    assert capfd.readouterr() == ("", "")
    os.close(began)
    os.close(begin)


def test_an_error_is_that_of_the_caller():
    def work(names):
        for name in names:
            raise KeyError(name)
        return {}

    with pytest.raises(KeyError):
        share(work, ["a", "b", "c"], 2)


def test_no_child_beside_other_threads():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert share(by_whom, ["a", "b"], 2) == by_whom("ab")
    finally:
        end.set()
        thread.join()


def test_entries_are_the_same_whoever_compiles_them(tmp_path, monkeypatch):
    def stored(processes):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(processes)))
        session = Session(Source("net.nn", PROGRAM))
        session.prepare(session.manifest.entries, processes)
        return {path.name: path.read_bytes() for path in (tmp_path / str(processes)).rglob("*" + SUFFIX)}

    one, three = stored(1), stored(3)
    assert three.items() <= one.items() and len(three) > 3  # the first also has what is loaded once per process


def test_an_entry_that_is_wrong_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session = Session(Source("net.nn", PROGRAM + "export slope(x: f32[4]) -> f32[4] = grad(argmax(x), x)\n"))
    with pytest.raises(SourceError, match="argmax"):
        session.prepare(["predict", "slope", "train"], 2)


@pytest.mark.parametrize(("call", "error"), [("pipe", errno.EMFILE), ("fork", errno.EAGAIN)])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_what_the_system_does_not_grant_is_done_without(monkeypatch, call, error, granted):
    """No more files, no more processes: everything is made all the same, and nothing stays open."""
    real, left = getattr(os, call), [granted]

    def limited():
        if not left[0]:
            raise OSError(error, os.strerror(error))
        left[0] -= 1
        return real()

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, call, limited)
    names = [f"n{k}" for k in range(20)]
    assert set(share(by_whom, names, 4)) == set(names)
    assert set(os.listdir("/proc/self/fd")) == before


WHILE_OTHERS_COMPILE = """
import os, signal, threading, time
import numpy as np, nnc

def made(k):
    f = nnc.function(f"fn f(x: f32[N]) -> f32[N] = tanh(x) * {k}.5 + sin(x)", threads=1, cache=False)
    return f(np.zeros(3, np.float32))

made(0)
other = threading.Thread(target=lambda: [made(k) for k in range(1, 5)])
other.start()
codes = []
for n in range(3):
    time.sleep(0.05)
    child = os.fork()
    if child == 0:
        signal.alarm(600)  # or it would stay
        made(100 + n)
        os._exit(7)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
other.join()
print(codes)
"""


def test_a_child_of_a_process_that_compiles_can_compile():
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WHILE_OTHERS_COMPILE], capture_output=True, text=True, timeout=1200
    )
    assert out.stdout == f"{[7] * 3}\n", out.stderr
