"""The cache: what is stored comes back, damage is noticed, and nothing that happens to it reaches the user."""

import gc
import multiprocessing
import os
import pwd
import shutil
import subprocess
import sys
import time
import warnings
import weakref

import pytest

import nnc
from nnc.compiler.native.cache import SUFFIX, Cache, _name
from nnc.compiler.session import without_collection
from nnc.dsl.home import default_directory


def entries(cache):
    return sorted(cache.directory.glob("*" + SUFFIX))


def entry(cache, key):
    return cache.directory / (_name(key) + SUFFIX)


def test_what_is_put_comes_back(tmp_path):
    cache = Cache(tmp_path / "c")
    assert cache.get("k") is None
    for data in (b"", b"x", b"\n{}\n", os.urandom(100_000)):
        cache.put("k", data)
        assert cache.get("k") == data
        assert Cache(tmp_path / "c").get("k") == data
    assert cache.get("other") is None
    assert len(entries(cache)) == 1


def test_it_is_private(tmp_path):
    cache = Cache(tmp_path / "a" / "c")
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    cache.put("k", b"secret")
    assert entries(cache)[0].stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_directory_others_may_write_to_is_not_used(tmp_path, mode):
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(mode)
    with pytest.warns(RuntimeWarning, match="can be written by others"):
        cache = Cache(tmp_path / "c")
    cache.put("k", b"x")
    assert cache.get("k") is None
    assert not list((tmp_path / "c").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_not_used(tmp_path):
    (tmp_path / "c").mkdir(mode=0o700)
    os.chown(tmp_path / "c", 12345, 12345)
    with pytest.warns(RuntimeWarning, match="belongs to somebody else"):
        assert Cache(tmp_path / "c").get("k") is None


def flip(data, k):
    return data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :]


@pytest.mark.parametrize("damage", [
    lambda d: b"", lambda d: d[:-1], lambda d: d + b"x", lambda d: d[: len(d) // 2], lambda d: flip(d, len(d) - 1),
    lambda d: flip(d, 3), lambda d: b"[" * 4000 + b"\n", lambda d: b"x" * 10_000, lambda d: b"null\n",
    lambda d: b"\xff\n",
])  # fmt: skip
def test_a_damaged_entry_is_built_again(tmp_path, damage):
    cache = Cache(tmp_path / "c")
    cache.put("k", b"payload" * 100)
    (file,) = entries(cache)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert cache.get("k") is None
    cache.put("k", b"again")
    assert cache.get("k") == b"again"


def test_it_warns_once(tmp_path):
    cache = Cache(tmp_path / "c")
    for key in "ab":
        cache.put(key, b"x")
    for file in entries(cache):
        file.write_bytes(b"")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert cache.get("a") is None and cache.get("b") is None
    assert len(seen) == 1


def test_warnings_that_are_errors_do_not_stop_the_run(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.put("k", b"x")
    entries(cache)[0].write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get("k") is None


@pytest.mark.parametrize("make", [
    lambda p: p.write_text("a file"), lambda p: p.symlink_to("/nonexistent/x/y"), lambda p: p.symlink_to(p),
])  # fmt: skip
def test_a_place_that_is_no_directory(tmp_path, make):
    make(tmp_path / "c")
    with pytest.warns(RuntimeWarning):
        cache = Cache(tmp_path / "c")
    cache.put("k", b"x")
    assert cache.get("k") is None


def test_it_vanishes_while_in_use(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.put("k", b"x")
    for file in cache.directory.iterdir():
        file.unlink()
    cache.directory.rmdir()
    assert cache.get("k") is None
    with pytest.warns(RuntimeWarning, match="cannot write"):
        cache.put("k", b"x")


def test_the_oldest_go_first(tmp_path):
    cache = Cache(tmp_path / "c", limit=10_000)
    for k in range(5):
        cache.put(str(k), bytes(3000))
        if cache.get(str(k)) is not None:
            os.utime(entry(cache, str(k)), (k, k))
    assert [k for k in range(5) if cache.get(str(k)) is not None] == [2, 3, 4]
    cache.put("huge", bytes(20_000))
    assert cache.get("huge") is None


def test_use_counts(tmp_path):
    cache = Cache(tmp_path / "c", limit=7_000)
    for k in "ab":
        cache.put(k, bytes(3000))
        os.utime(entry(cache, k), (1, 1))
    assert cache.get("a") is not None  # used now
    cache.put("c", bytes(3000))
    assert [k for k in "abc" if cache.get(k) is not None] == ["a", "c"]


def test_what_a_killed_process_left_goes_too(tmp_path):
    cache = Cache(tmp_path / "c", limit=5_000)
    (cache.directory / "tmp-left").write_bytes(bytes(4000))
    os.utime(cache.directory / "tmp-left", (1, 1))
    cache.put("k", bytes(3000))
    assert {f.name for f in cache.directory.iterdir()} == {entries(cache)[0].name, "swept"}


def test_there_are_not_too_many_entries(tmp_path):
    cache = Cache(tmp_path / "c", entries=40)
    for k in range(60):
        cache.put(str(k), b"x")
        os.utime(entry(cache, str(k)), (k, k))
    assert [k for k in range(60) if cache.get(str(k)) is not None] == list(range(20, 60))


def test_who_stores_little_looks_through_the_entries_once(tmp_path, monkeypatch):
    """To look costs time for each entry that there is, and each program that is compiled stores three."""
    looked = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scan(path))
    for k in range(100):
        Cache(tmp_path / "c").put(str(k), b"x")
    assert len(looked) == 1


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("NNC_CACHE", str(tmp_path / "x"))
    assert default_directory() == tmp_path / "x"
    monkeypatch.setenv("NNC_CACHE", "")
    assert default_directory() is None
    assert Cache().get("k") is None
    monkeypatch.delenv("NNC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "nnc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "nnc"


@pytest.mark.parametrize(
    ("name", "place"),
    [("NNC_CACHE", "here"), ("NNC_CACHE", "~/here"), ("HOME", "here"), ("HOME", None), ("XDG_CACHE_HOME", "here")],
)
def test_no_folder_where_a_command_happens_to_run(tmp_path, monkeypatch, name, place):
    """Without a place there is no cache, and one warning, which is a line and shows none of ours."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for variable in ("NNC_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    if place is not None:
        monkeypatch.setenv(name, place)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            f = nnc.function("fn f(x: f32[N]) -> f32[N] = x + 1")
            assert f([1.0]).tolist() == [2.0]
    assert list(tmp_path.iterdir()) == [] and len(seen) == 1
    (w,) = seen
    shown = warnings.formatwarning(w.message, w.category, w.filename, w.lineno)
    assert shown.count("\n") == 1 and "/" not in shown.replace("~/here", "") and "the compilation cache: " in shown


def test_an_entry_under_the_name_of_another_is_not_used(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.put("a", b"program a")
    cache.put("b", b"program b")
    shutil.copy(entry(cache, "a"), entry(cache, "b"))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert cache.get("b") is None
    assert cache.get("a") == b"program a"


def work(directory, seed, failures):
    cache = Cache(directory, limit=200_000)
    for turn in range(60):
        key = str((turn * 7 + seed) % 12)
        data = cache.get(key)
        if data is None:
            cache.put(key, key.encode() * 5000)
        elif data != key.encode() * 5000:
            failures.put(key)


def test_eight_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    workers = [context.Process(target=work, args=(tmp_path / "c", k, failures)) for k in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0] * 8
    assert failures.empty()
    assert not list((tmp_path / "c").glob("tmp-*"))


def test_a_process_killed_while_writing_leaves_no_half_entry(tmp_path):
    script = f"""
from nnc.compiler.native.cache import Cache
cache = Cache({str(tmp_path / "c")!r})
print("ready", flush=True)
while True:
    cache.put("k", bytes(3_000_000))
"""
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert writer.stdout.readline(), "it writes"
        time.sleep(0.05)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Cache(tmp_path / "c").get("k") in (None, bytes(3_000_000))


def test_what_was_compiled_is_old_at_once_and_garbage_is_found_later():
    class Node:
        pass

    with without_collection():
        kept = [[] for _ in range(100_000)]
        ring = Node()
        ring.ring = ring
        ring = weakref.ref(ring)
    assert len(gc.get_objects(0)) + len(gc.get_objects(1)) < len(kept)
    assert gc.get_freeze_count() == 0 and ring() is not None
    gc.collect()
    assert ring() is None
