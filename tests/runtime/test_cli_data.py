"""`nnc data`: public sets that the user has downloaded are checked, and made what a train block reads."""

from __future__ import annotations

import io
import re
import tarfile
from hashlib import md5, sha256
from pathlib import Path

import pytest

import nnc.runtime.cli.data as command
from nnc.runtime.cli import main
from nnc.runtime.cli.data import SETS, Download, PublicSet
from nnc.runtime.data.formats import formats

RECORD = 1 + 3 * 32 * 32


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


BATCHES = {"data_batch_1.bin": bytes(4 * RECORD), "test_batch.bin": bytes(2 * RECORD)}
PACKED = archive({f"cifar/{n}": c for n, c in BATCHES.items()} | {"cifar/readme.html": b"no", "../evil.bin": b"no"})
TEXT = b"to be or not to be, that is the question: " * 20


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets like the published ones, but small."""
    monkeypatch.chdir(tmp_path)
    holds = {n: len(c) for n, c in BATCHES.items()}
    monkeypatch.setattr(
        command,
        "SETS",
        {
            "things": PublicSet(
                "images",
                (
                    Download(
                        "things.tar.gz",
                        "https://example.org/things.tar.gz",
                        len(PACKED),
                        f"md5:{md5(PACKED).hexdigest()}",
                        holds,
                    ),
                ),
                "cifar10",
            ),
            "play": PublicSet(
                "a text",
                (
                    Download(
                        "input.txt", "https://example.org/input.txt", len(TEXT), f"sha256:{sha256(TEXT).hexdigest()}"
                    ),
                ),
                "text",
            ),
        },
    )
    Path("got").mkdir()
    Path("got/things.tar.gz").write_bytes(PACKED)
    Path("got/input.txt").write_bytes(TEXT)


def test_where_a_set_comes_from(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0 and capfd.readouterr().out == "things  images\nplay    a text\n"
    assert main(["data", "play"]) == 0
    out = capfd.readouterr().out
    assert "https://example.org/input.txt" in out and sha256(TEXT).hexdigest() in out and f"{len(TEXT)} bytes" in out
    assert main(["data", "plays"]) == 1 and "did you mean `play`?" in capfd.readouterr().err
    assert main(["data", "play", "--from", "got"]) == 2


def test_what_was_downloaded_becomes_what_a_train_block_reads(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "things", "--from", "got", "--to", "a/things"]) == 0
    assert '4 examples and 2 to test: data = cifar10("a/things")' in capfd.readouterr().out
    assert {p.name: p.read_bytes() for p in Path("a/things").iterdir()} == BATCHES and not list(Path().rglob("evil*"))
    assert main(["data", "play", "--to", "got"]) == 0
    assert 'examples: data = text("got/input.txt")' in capfd.readouterr().out
    assert Path("got/input.txt").read_bytes() == TEXT
    assert main(["data", "things", "--to", "got"]) == 0 and Path("got/test_batch.bin").exists()


def test_what_is_missing_or_another_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "play", "--to", "b"]) == 4
    err = capfd.readouterr().err
    assert "error[E0620]: b: `input.txt` is not there" in err and "`nnc data play` says where" in err
    assert not Path("b").exists()
    Path("got/input.txt").write_bytes(TEXT[:-1])
    assert main(["data", "play", "--from", "got", "--to", "b"]) == 4
    assert f"got/input.txt: expected {len(TEXT)} bytes, as published, found {len(TEXT) - 1}" in capfd.readouterr().err
    Path("got/input.txt").write_bytes(TEXT[:-1] + b"?")
    assert main(["data", "play", "--from", "got", "--to", "b"]) == 4
    assert f"expected the sha256 {sha256(TEXT).hexdigest()}, found" in capfd.readouterr().err
    Path("got/input.txt").unlink()
    Path("got/input.txt").mkdir()
    assert main(["data", "play", "--from", "got", "--to", "b"]) == 4
    assert "error[E0620]: got/input.txt" in capfd.readouterr().err and not Path("b").exists()


def test_an_archive_that_lacks_a_file(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive({"data_batch_1.bin": BATCHES["data_batch_1.bin"], "test_batch.bin": b"short"})
    download = Download(
        "x.tar.gz",
        "https://example.org/x",
        len(packed),
        f"md5:{md5(packed).hexdigest()}",
        {n: len(c) for n, c in BATCHES.items()},
    )
    monkeypatch.setattr(command, "SETS", {"x": PublicSet("x", (download,), "cifar10")})
    Path("got/x.tar.gz").write_bytes(packed)
    assert main(["data", "x", "--to", "got"]) == 4
    assert "expected an archive with `test_batch.bin`, found none" in capfd.readouterr().err


@pytest.mark.parametrize("found", SETS.values(), ids=SETS)
def test_the_records_are_whole(found: PublicSet) -> None:
    assert not found.source or found.source in formats()
    for f in found.files:
        assert re.fullmatch(r"https?://\S+", f.url) and f.url.endswith(f.name) and f.size > 0
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", f.digest)


DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", SETS)
def test_the_files_of_the_tests_are_those(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not all((DATA / name / f.name).exists() for f in SETS[name].files):
        pytest.skip(f"{name} is not at ../shared/data/{name}")
    monkeypatch.setattr(command, "SETS", SETS)
    assert main(["data", name, "--from", str(DATA / name), "--to", "c"]) == 0
    assert all((Path("c") / f.name).exists() for f in SETS[name].files)
