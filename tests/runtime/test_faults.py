"""Files that were edited, cut, linked, or are no files: each is refused in words, and at once."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import DataError, ResourceError
from nnc.dsl.parser import MAX_BYTES, read_source
from nnc.runtime.call.arrays import MAX_AXES
from nnc.runtime.cli import main
from nnc.runtime.data.files import MAX_LINE
from nnc.runtime.data.npy import read_array
from nnc.runtime.data.npz import npz
from nnc.runtime.store import checkpoint, facts, files, foreign, rules, safetensors

NET = """
hyper lr: float = 0.1
model Net(x: f32[B, 2]) -> (y: f32[B]) { y = x |> Dense(1) |> squeeze(1) }
train Net(x, t: f32[B]) {
    loss = mean((y - t)^2)
    optimizer = SGD(lr)
    data = npz("points.npz")
    batch = 4
    epochs = 2
}
"""
ENTRY = [sys.executable, "-c", "from nnc.runtime.cli import entry_point; entry_point()"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program, its data, and a run."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "net.nn").write_text(NET)
    rng = np.random.default_rng(0)
    np.savez(folder / "points.npz", x=rng.normal(size=(12, 2)).astype("f4"), t=np.ones(12, "f4"))
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
        assert main(["train", str(folder / "net.nn"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder


@pytest.fixture
def folder(
    made: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The program and its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    for name in ("net.nn", "points.npz"):
        shutil.copy(made / name, name)
    return tmp_path


@pytest.fixture
def run(made: Path, folder: Path) -> Path:
    """And the run."""
    shutil.copytree(made / "run", "run")
    return folder / "run"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


# --- checkpoints ------------------------------------------------------------------------------------------------------


def forge(path: Path, change: Any) -> None:
    """Edit the facts of a checkpoint, with the digest that belongs to them."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    metadata = table.pop("__metadata__")
    known = json.loads(metadata["nnc"])
    change(known)
    text = json.dumps(known)
    header = json.dumps({"__metadata__": {"nnc": text, "sha256": checkpoint._digest(text, table)}, **table}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


@pytest.fixture
def saved(net, examples, tmp_path: Path) -> Path:
    """A checkpoint from the middle of an epoch."""

    class Stop:
        def on_progress(self, report: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        net.fit(*examples, epochs=3, callbacks=[Stop()])
    net.save(tmp_path / "a.nnw")
    return tmp_path / "a.nnw"


COUNTS = ["epoch", "last", "batch", "position", "examples", "stale", "seed"]
FORGED = [
    *[(f"progress.{name}", value) for name in COUNTS for value in (-1, 2**70, "x", 1.5, True, [])],
    *[(f"progress.{name}", None) for name in COUNTS if name != "batch"],
    *[(name, value) for name in ("seed", "epochs_done") for value in (-1, 2**70, "x", None, 1.5)],
    ("progress.position", 44), ("progress.batch", 0), ("seed", 2**31), ("progress.totals", [0.0]),
    ("progress.totals", ["x"]), ("progress.totals", 1), ("progress.shuffle", 1), ("progress.best", "x"),
    ("progress.history", [1]), ("progress.history", [{"loss": 1.0}]), ("progress.stopped", 1),
    ("progress.history", [{"epoch": 1, "seconds": 1.0, "loss": "x"}]), ("progress", 1), ("schema", {"features": 1}),
    ("schema", {"features": [], "target": None, "classes": [1]}), ("sizes", []), ("hypers", 1), ("tensors", {"a": 1}),
    ("model", "\ud800"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), FORGED, ids=lambda v: str(v)[:20])
def test_a_field_of_a_checkpoint_is_checked_when_it_is_read(make, saved, field, value):
    def change(known: dict[str, Any]) -> None:
        *path, last = field.split(".")
        for name in path:
            known = known[name]
        known[last] = value

    forge(saved, change)
    other = make(seed=99)
    before = {n: a.tobytes() for n, a in other.variables.items()}
    with pytest.raises(DataError) as caught:
        other.load(saved)
    assert caught.value.code == "E0623" and f"`{field}" in str(caught.value), caught.value
    assert before == {n: a.tobytes() for n, a in other.variables.items()} and other.progress is None


def test_facts_that_are_as_they_were_are_read(make, saved, examples):
    forge(saved, lambda known: None)
    other = make(seed=99)
    other.load(saved)
    assert other.progress.position == 43 or other.progress.position % 8 == 0
    assert other.fit(*examples, resume=True)[-1]["epoch"] == 3


def test_a_fact_that_is_missing_is_named(make, saved):
    forge(saved, lambda known: known.pop("epochs_done"))
    with pytest.raises(DataError, match=r"expected a whole number .* as `epochs_done`, found nothing"):
        make().load(saved)


def test_every_variable_that_differs_is_named(folder):
    text = NET.replace("Dense(1)", "Dense(3) |> Dense(1)")
    nnc.compile(text, threads=1).save("a.nnw")
    other = nnc.compile(text.replace("Dense(3)", "Dense(5)"), threads=1)
    with pytest.raises(DataError) as caught:
        other.load("a.nnw")
    assert [d.code for d in caught.value.diagnostics] == ["E0624"] * 3
    for said in (
        "`Net.dense_1.W` as f32[5, 2], found f32[3, 2]",
        "`Net.dense_1.b` as f32[5], found f32[3]",
        "`Net.dense_2.W` as f32[1, 5], found f32[1, 3]",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(("shape", "place"), [
    ([True], [0, 4]), ([1.0], [0, 4]), (["1"], [0, 4]), ("1", [0, 4]), ([1], [0.0, 4.0]), ([1], ["0", "4"]),
    ([1], [False, 4]), ([1] * 100, [0, 4]), ([float("inf")], [0, 4]), ([1], [0, float("inf")]), ([None], [0, 4]),
    ([2**40, 2**40, 0], [0, 0]), ([1, [1]], [0, 4]), ([-1, -1], [0, 4]),
])  # fmt: skip
def test_a_table_of_tensors_has_whole_numbers(tmp_path, shape, place):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": place}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(DataError, match=r"E0623.*expected dtype, shape and place of `a` that agree"):
        foreign.read(path)


def test_a_dtype_that_numpy_lacks_is_named(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(DataError, match=r"E0623.*expected `a` of F64, F32, .*BF16, found .*F8_E4M3"):
        foreign.read(path)


@pytest.mark.parametrize("header", [
    b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},}', b'{,}', b'{"a":1}', b'{"a":[]}', b'{"a" {}}',
    b'{"a":{}', b'{"a":{"b":{}}}', b'{}}', b'{"__metadata__":{"a":1}}', b'{"__metadata__":{"a":["b"]}}',
    b'{"__metadata__":{"a":"b",}}', b'{"__metadata__":{"a":"b"},"__metadata__":{"c":"d"}}', b'{"\xff":{}}',
    b'{"a":{"b":' + b"[" * 5000 + b'}}',
    b'{"__metadata__":{' + b",".join(b'"%d":""' % k for k in range(3000)) + b"}}",
])  # fmt: skip
def test_a_header_is_an_object_of_flat_objects(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DataError, match="E0623"):
        foreign.read(path)


def test_a_file_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nnc.runtime.call.arrays.memory_limit", lambda: 1 << 20)
    monkeypatch.setattr("nnc.runtime.call.arrays._SMALL", 0)
    header = json.dumps({"a": {"dtype": "U8", "shape": [1 << 21], "data_offsets": [0, 1 << 21]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1 << 21))
    with pytest.raises(ResourceError, match=r"E0605.*a.safetensors needs 2.0 MB, but this machine has 1.0 MB"):
        foreign.read(path)


READ = """
import resource, sys, time
from pathlib import Path
from nnc.runtime.store import foreign
from nnc.dsl.errors import DataError, ResourceError
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
before, start = peak(), time.process_time()
try:
    foreign.read(Path(sys.argv[1]))
    said = "read"
except DataError as e:
    said = e.code
print(said, time.process_time() - start, peak() - before)
"""


@pytest.mark.parametrize(("member", "count"), [
    ('"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', 1_000_000),
    ('"%d":{"shape":[' + "[]," * 999 + "[]]}", 20_000),
])  # fmt: skip
def test_a_header_of_a_million_tensors_costs_little(tmp_path, member, count):
    path = tmp_path / "a.safetensors"
    header = ("{" + ",".join(member % k for k in range(count)) + "}").encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    out = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    said, seconds, nbytes = out.stdout.split()
    assert said == "E0623" and float(seconds) < 4 and int(nbytes) < len(header) + (64 << 20)


# --- runs -------------------------------------------------------------------------------------------------------------


def edit(run: Path, **changed: Any) -> None:
    known = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**known, **changed}))


@pytest.mark.parametrize(("field", "values"), [
    ("file", [None, 1, [], {}, "a\0b", "\ud800"]), ("model", [1, [], True]), ("data", [1, {}, "\0"]),
    ("hyper", [1, [], {"lr": None}, {"lr": [1]}, {"lr": {}}]),
    ("sizes", [1, [], {"D": "x"}, {"D": 1.5}]), ("dtype", [None, 1]), ("target_cpu", [None, []]),
    ("cache", [1, None, "x"]), ("optimize", [None, 0]), ("seed", [None, -1, 1.5, "x", 2**70, 2**40]),
    ("threads", [0, -1, "x", 2**70]), ("epochs", [-1, 1.5, "x"]), ("batch", [-1, "x", []]), ("main", [1, None]),
])  # fmt: skip
def test_a_field_of_a_run_is_checked_when_it_is_read(run, capfd, field, values):
    good = (run / "run.json").read_bytes()
    for value in values:
        (run / "run.json").write_bytes(good)
        edit(run, **{field: value})
        capfd.readouterr()
        code = main(["train", "--resume", "run", "--epochs", "3", "--quiet"])
        err = capfd.readouterr().err
        assert code in (1, 4) and "error[E06" in err and field in err, (value, code, err)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff",
        b"{}",
        b"[" + b"[]," * 3_000_000 + b"0]",
    ],
)
def test_a_description_of_a_run_that_is_none(run, capfd, text):
    (run / "run.json").write_bytes(text)
    assert main(["eval", "run"]) == 4
    assert "error[E0623]" in capfd.readouterr().err


@pytest.mark.parametrize("main_copy", ["../net.nn", "/etc/hostname", "", "sources/../../net.nn"])
def test_a_run_has_its_program_inside(run, capfd, main_copy):
    edit(run, main=main_copy)
    assert main(["eval", "run"]) == 4
    assert "error[E0622]" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "hypers.json", "run.json", "source.nn", "last.nnw", "best.nnw"])
def test_no_link_of_a_run_is_followed(run, folder, capfd, name):
    """Whoever packed the run would choose what is read, and what is overwritten."""
    (run / name).rename(folder / "victim")
    before = (folder / "victim").read_bytes()
    (run / name).symlink_to(folder / "victim")
    assert main(["train", "--resume", "run", "--epochs", "4", "--quiet"]) == 4
    assert "found a link to" in capfd.readouterr().err
    assert (folder / "victim").read_bytes() == before and (run / name).is_symlink()


def test_no_folder_of_a_run_is_a_link(folder, capfd):
    Path("part.nn").write_text("const scale = 2.0")
    Path("net.nn").write_text('import "part.nn"\n' + NET)
    assert main(["train", "net.nn", "--out", "run", "--quiet"]) == 0
    (folder / "run" / "sources").rename(folder / "elsewhere")
    (folder / "run" / "sources").symlink_to(folder / "elsewhere")
    assert main(["train", "--resume", "run", "--epochs", "4", "--quiet"]) == 4
    assert "found a link to" in capfd.readouterr().err


def test_a_folder_with_links_is_no_place_for_a_run(folder, capfd):
    (folder / "victim").write_text("mine")
    (folder / "out").mkdir()
    (folder / "out" / "metrics.jsonl").symlink_to(folder / "victim")
    assert main(["train", "net.nn", "--out", "out", "--quiet"]) == 4
    assert "found a link to" in capfd.readouterr().err and (folder / "victim").read_text() == "mine"


# --- files that are none ----------------------------------------------------------------------------------------------


def test_what_is_no_file_is_refused_at_once(folder, pipe):
    net = nnc.compile(NET, threads=1)
    for where in (pipe, Path("/dev/zero")):
        for read in (read_source, facts.load, npz, read_array, net.load, rules.read):
            with pytest.raises(OSError, match="not a regular file"):
                read(where)
        with pytest.raises(DataError, match=r"E0625.*not a regular file"):
            net.save(where)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "PIPE"],
        ["check", "net.nn", "--set", "@PIPE"],
        ["fmt", "PIPE"],
        ["train", "net.nn", "--data", "PIPE"],
        ["eval", "net.nn", "--weights", "PIPE"],
        ["predict", "net.nn", "PIPE.csv"],
        ["predict", "net.nn", "PIPE.npz"],
        ["check", "net.nn", "--set", "@/dev/zero"],
        ["check", "/dev/zero"],
    ],
)
def test_the_command_line_waits_for_no_pipe(folder, pipe, capfd, arguments):
    for suffix in (".csv", ".npz"):
        os.mkfifo(f"{pipe}{suffix}")
    assert main([a.replace("PIPE", str(pipe)) for a in arguments]) in (2, 4)
    assert "not a regular file" in capfd.readouterr().err


@pytest.mark.parametrize(("given", "code"), [(b"\xff", "E0682"), (b"a\0", "E0682"), (b"#" * (17 << 20), "E0683")])
def test_what_is_piped_in_is_source_as_well(folder, capfd, monkeypatch, given, code):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert main(["fmt", "-"]) == 4 and f"error[{code}]" in capfd.readouterr().err


def test_a_name_that_no_file_can_have(folder):
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(DataError, match="no file can have this name"):
            read_array(Path(name))


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_save_sweeps_what_dead_processes_left(make, tmp_path):
    """But not what a living process writes, nor what belongs to another file."""
    path, dead = tmp_path / "[a*.nnw", 4_000_000
    left = path.with_name(f".{path.name}.{dead}.tmp")
    mine = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    others = [
        path.with_name(f".{path.name}.{os.getppid()}.tmp"),
        tmp_path / f".b.nnw.{dead}.tmp",
        tmp_path / ".a.nnw.x.tmp",
    ]
    for file in (left, mine, *others):
        file.write_bytes(b"half")
    make().save(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_failed_write_says_how_much_was_wanted(make, tmp_path, monkeypatch):
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"E0625.*a.nnw \(\d+ B|\d\.\d KB\) cannot be written: no space left"):
        make().save(tmp_path / "a.nnw")
    with pytest.raises(DataError, match=r"x \(1\.5 KB\) cannot be written: no space left on device"):
        files.write(tmp_path / "x", b"0" * 1024, b"1" * 512)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_appended_through_a_link(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(DataError, match="E0625"):
        files.append(tmp_path / "link", b"theirs")
    files.append(tmp_path / "new", b"a")
    files.append(tmp_path / "new", b"b")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "new").read_bytes() == b"ab"


def test_what_could_not_be_read_again_is_not_written(make, tmp_path, monkeypatch):
    for name, most in (("MAX_TENSORS", 2), ("MAX_HEADER", 100)):
        with monkeypatch.context() as changed:
            changed.setattr(checkpoint, name, most)
            with pytest.raises(ResourceError, match=r"E0605.*could not be read again"):
                make().save(tmp_path / "a.nnw")
    assert list(tmp_path.iterdir()) == []


# --- what is printed --------------------------------------------------------------------------------------------------

HOSTILE = "a\x1b[31m\x07\x9b2J\u202e\r\udcffz"


def printed(code: str) -> str:
    """What of an output could drive a terminal."""
    return "".join(c for c in code if not c.isprintable() and c not in "\n\t")


@pytest.mark.parametrize("arguments", [
    ["check", "NAME.nn"], ["check", "NAME.bad.nn"], ["check", "NAME.none.nn"], ["check", "NAME.bad.nn", "--json"],
    ["fmt", "NAME.nn"], ["train", "NAME.nn", "--out", "NAME", "--epochs", "1"], ["eval", "NAME", "--json"],
    ["train", "net.nn", "--data", "NAME.npz"], ["train", "--resume", "NAME.none"], ["summary", "NAME.nn"],
    ["check", "net.nn", "--set", "@NAME.none"], ["check", "net.nn", "--NAME"], ["NAME"], ["plan", "NAME.nn"],
    ["load-weights", "NAME.nn", "NAME.npz", "-o", "NAME.nnw"], ["check", "net.nn", "--set", "NAME=1"],
    ["test", "NAME.nn"],
])  # fmt: skip
def test_names_do_not_drive_the_terminal(folder, capfd, arguments):
    Path(f"{HOSTILE}.nn").write_text(NET + '\ntest "\x1b[31m" { expect 1 == 1 }\n')
    Path(f"{HOSTILE}.bad.nn").write_text("fn f(x: f32[B]) -> f32[B] = y  # \x1b[31m\x9b\n")
    np.savez(f"{HOSTILE}.npz", z=np.ones(3))
    if arguments[0] == "eval":
        assert main(["train", f"{HOSTILE}.nn", "--out", HOSTILE, "--quiet"]) == 0
    capfd.readouterr()
    assert main([a.replace("NAME", HOSTILE) for a in arguments]) in (0, 1, 2, 4)
    out, err = capfd.readouterr()
    assert printed(out + err) == "" and out + err
    if "--json" in arguments:
        json.loads(out)


def test_warnings_of_a_program_do_not_drive_the_terminal():
    text = NET.replace("y = x", 'warn(1 < 2, "\x1b[31mred")\n y = x').replace('data = npz("points.npz")', "")
    with pytest.warns(UserWarning, match=r"\ufffd\[31mred") as seen:
        nnc.compile(text, threads=1, cache=False)
    assert not any(printed(str(w.message)) for w in seen)


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed", "arguments"),
    [
        ((1,), ["train", "net.nn", "--out", "out"]),
        ((0,), ["--version"]),
        ((0, 1, 2), ["train", "net.nn", "--out", "out"]),
        ((2,), ["check", "none.nn"]),
        ((1,), ["check", "none.nn"]),
    ],
)
def test_a_stream_that_is_closed(folder, closed, arguments):
    """It leads nowhere; no file gets its number."""
    out = subprocess.run(
        [*ENTRY, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: [os.close(n) for n in closed],
    )
    assert out.returncode == (4 if "none.nn" in arguments else 0), out.stderr
    assert "Traceback" not in out.stderr and "Exception ignored" not in out.stderr
    if "train" in arguments:
        nnc.compile("net.nn", threads=1).load("out")


@pytest.mark.parametrize("arguments", [["check", "none.nn"], ["doc"]])
def test_nobody_reads(folder, arguments):
    source, sink = os.pipe()
    os.close(source)
    with open("err", "w") as err:
        code = subprocess.run([*ENTRY, *arguments], stdout=sink, stderr=err, check=False).returncode
        both = subprocess.run([*ENTRY, *arguments], stdout=sink, stderr=sink, check=False).returncode
    os.close(sink)
    assert Path("err").read_text() == "" or arguments == ["check", "none.nn"]
    assert code == (4 if arguments == ["check", "none.nn"] else 141) and both == 141


def test_nobody_reads_any_more(folder):
    """What was learned is kept."""
    with subprocess.Popen(
        [*ENTRY, "train", "net.nn", "--out", "out", "--epochs", "50000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as p:
        assert p.stdout is not None and p.stderr is not None
        for _ in range(9):  # of which the last are epochs
            p.stdout.readline()
        p.stdout.close()
        assert p.stderr.read() == "" and p.wait() == 141
    net = nnc.compile("net.nn", threads=1)
    net.load("out/last.nnw")
    assert net.epochs_done > 1


def test_few_files_may_be_open(folder):
    limited = [
        sys.executable,
        "-c",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))\n"
        "from nnc.runtime.cli import entry_point; entry_point()",
    ]
    out = subprocess.run([*limited, "train", "net.nn", "--quiet"], capture_output=True, text=True, check=False)
    assert (out.returncode, out.stderr) == (0, "")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_system_does_not_grant_is_a_limit(folder, capfd, monkeypatch, number):
    def refused() -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("nnc.dsl.standard.definitions", refused)
    assert main(["doc"]) == 5 and "error[E0605]" in capfd.readouterr().err


# --- the promises -----------------------------------------------------------------------------------------------------


def test_security_says_what_the_limits_are():
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")
    for limit in (
        f"a `.nn` file | {MAX_BYTES >> 20} MB",
        f"a file for `--set @` | {facts.MAX_FILE >> 20} MB",
        f"{safetensors.MAX_HEADER >> 20} MB, {safetensors.MAX_TENSORS:,} tensors of at most {MAX_AXES} axes",
        f"{facts.MAX_VALUES >> 20} million values",
        f"{MAX_LINE >> 20} million characters",
    ):
        assert limit in text, limit
