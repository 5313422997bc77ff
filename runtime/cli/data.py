"""The command about public data sets: where each comes from, whether the files are the right ones, how to read them.

Nothing is downloaded: the user does that. What was downloaded is known by its digest, and put where a train block's
`data` reads it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import click

from ...dsl.errors import DataError, NncError, error
from ...dsl.files import open_regular
from ..call.messages import listed, unknown
from ..store.files import write
from .show import note, say, show_result


@dataclass(frozen=True, slots=True)
class Download:
    """A file as its publisher has it. `holds` are the members of an archive that are wanted, and their bytes."""

    name: str
    url: str
    size: int
    digest: str  # `sha256:..`, or `md5:..` where no other is published
    holds: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class PublicSet:
    """`source` is the format that reads the folder, or the one file in it; none where no train block reads it."""

    about: str
    files: tuple[Download, ...]
    source: str = ""


def _four(folder: str, sizes: Sequence[int], digests: Sequence[str]) -> tuple[Download, ...]:
    """The files of MNIST, or of a set that takes its place."""
    names = [f"{split}-{what}-ubyte.gz" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    return tuple(
        Download(n, folder + n, size, f"sha256:{digest}") for n, size, digest in zip(names, sizes, digests, strict=True)
    )


_PHOTOS = "https://raw.githubusercontent.com/scikit-image/scikit-image/v0.16.2/skimage/data/"
SETS: Mapping[str, PublicSet] = {
    "mnist": PublicSet(
        "handwritten digits: 60,000 and 10,000 images of 28x28",
        _four(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            (9_912_422, 28_881, 1_648_877, 4_542),
            (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        "idx",
    ),
    "fashion-mnist": PublicSet(
        "pieces of clothing: 60,000 and 10,000 images of 28x28 (MIT)",
        _four(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            (26_421_880, 29_515, 4_422_102, 5_148),
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        "idx",
    ),
    "cifar10": PublicSet(
        "ten kinds of things: 50,000 and 10,000 images of 32x32 in colour",
        (
            Download(
                "cifar-10-binary.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                170_052_171,
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
                {n: 30_730_000 for n in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")},
            ),
        ),
        "cifar10",
    ),
    "tinyshakespeare": PublicSet(
        "40,000 lines of Shakespeare, a million characters",
        (
            Download(
                "input.txt",
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                1_115_394,
                "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
        "text",
    ),
    "photos": PublicSet(
        "a cat, a cup of coffee and an astronaut, to look into networks with (public domain)",
        tuple(
            Download(f"{name}.png", f"{_PHOTOS}{name}.png", size, f"sha256:{digest}")
            for name, size, digest in (
                ("astronaut", 791_555, "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
                ("chelsea", 240_512, "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
                ("coffee", 466_706, "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
            )
        ),
    ),
}


@click.command()
@click.argument("name", required=False)
@click.option("--to", "folder", metavar="DIR", help="Check the files there, and make them what a train block reads.")
@click.option("--from", "downloads", metavar="DIR", help="Where the downloaded files are (default: that of --to).")
def data(name: str | None, folder: str | None, downloads: str | None) -> None:
    """Say where a public data set comes from, and check its files.

    Without NAME, which there are. Nothing is downloaded."""
    if name is None:
        width = max(map(len, SETS))
        listing = "\n".join(f"{n:{width}}  {s.about}" for n, s in SETS.items())
        show_result({n: s.about for n, s in SETS.items()}, lambda: say(listing))
        return
    if name not in SETS:
        raise unknown("public data set", name, list(SETS))
    found = SETS[name]
    if folder is None:
        if downloads is not None:
            raise click.UsageError("--from is for --to")
        files = [{"url": f.url, "bytes": f.size, "digest": f.digest} for f in found.files]
        show_result({"name": name, "about": found.about, "files": files}, lambda: _say_where(name, found))
        return
    how = install(name, found, Path(folder), Path(downloads or folder))
    show_result({"name": name, "files": [f.name for f in found.files], "data": how}, lambda: say(how) if how else None)


def _say_where(name: str, found: PublicSet) -> None:
    say(f"{name}: {found.about}")
    for f in found.files:
        say(f"{f.url}\n  {f.size:,} bytes, {f.digest}")
    say(f"download {'it' if len(found.files) == 1 else 'them'}, then: nnc data {name} --to DIR")


def install(name: str, found: PublicSet, folder: Path, downloads: Path) -> str | None:
    """Check what was downloaded by its digest, and put it into the folder as the train block reads it; how to say so
    there. Raises `DataError` where files are missing (E0620) or are others (E0621)."""
    if missing := [f.name for f in found.files if not (downloads / f.name).exists()]:
        raise error(
            "E0620",
            f"{downloads}: {listed(missing)} {'is' if len(missing) == 1 else 'are'} not there",
            kind=DataError,
            help=f"`nnc data {name}` says where to get them; nnc downloads nothing",
        )
    for f in found.files:
        _check(downloads / f.name, f)
    folder.mkdir(parents=True, exist_ok=True)
    for f in found.files:
        for member, content in _contents(downloads / f.name, f):
            if folder / member != downloads / f.name:
                write(folder / member, content)
        note(f"{f.name}: as published")
    if not found.source:
        return None
    return _how(found.source, folder if len(found.files) > 1 or found.files[0].holds else folder / found.files[0].name)


def _check(path: Path, f: Download) -> None:
    from ..data.files import malformed, unreadable

    kind, _, wanted = f.digest.partition(":")
    try:
        with open_regular(path) as raw:
            size = path.stat().st_size
            if size != f.size:
                raise malformed(path, f"{f.size:,} bytes, as published", f"{size:,}", help=f"get it from {f.url}")
            digest = file_digest(raw, kind).hexdigest()  # type: ignore[arg-type]
    except OSError as e:
        if isinstance(e, NncError):
            raise
        raise unreadable(path, e) from e
    if digest != wanted:
        raise malformed(path, f"the {kind} {wanted}", digest, help=f"get it from {f.url}")


def _contents(path: Path, f: Download) -> Iterator[tuple[str, bytes]]:
    """What a downloaded file gives: itself, or the wanted members of an archive."""
    from ..data.files import malformed

    if f.holds is None:
        with open_regular(path) as raw:
            yield f.name, raw.read(f.size)
        return
    wanted = dict(f.holds)
    try:
        with open_regular(path) as raw, tarfile.open(fileobj=raw) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if member.isreg() and member.size == wanted.get(name) else None
                if content is not None:
                    yield name, content.read(wanted.pop(name))
    except (tarfile.TarError, EOFError, OSError) as e:
        if isinstance(e, NncError):
            raise
        raise malformed(path, "a complete archive", str(e).lower()) from e
    if wanted:
        raise malformed(path, f"an archive with {listed(list(wanted))}", "none")


def _how(source: str, path: Path) -> str:
    """Read the set once as a train block would, and say what to write there."""
    from ...compiler.manifest import DataSpec
    from ..data.sources import load

    found = load(DataSpec(source, (str(path.absolute()),)), Path("."), validation=None, seed=0)
    counts = [f"{n:,} {what}" for n, what in zip(found.counts, ("examples", "to test"), strict=True) if n]
    return f'{" and ".join(counts)}: data = {source}("{path}")'
