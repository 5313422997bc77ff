"""Checkpoints: everything that was learned, in one file that the safetensors library can read.

The file's metadata are `nnc`, facts in JSON: the program and its hypers, where training stands, and a sha256 per
tensor; and `sha256`, the digest of the facts and the tensor table. So a flipped bit anywhere is noticed. Saving writes
a temporary file, syncs, renames it and syncs the folder: a crash leaves the old file or the new one. Loading checks
everything before it touches the model (E0622 missing or unreadable, E0623 malformed or corrupt, E0624 of another
program, E0625 not writable).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from math import prod
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...compiler.manifest import TrainSpec, Variable
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import DataError, NncError, ResourceError, error
from ...dsl.files import open_regular
from ..call.arrays import NUMPY, check_bytes, nbytes
from ..call.column import Array
from ..call.messages import human
from ..data.table import Schema
from ..network import Network
from ..progress import Progress
from ..settings import MAX_SEED
from .facts import Wrong, check, parse, read, short
from .files import part, write
from .safetensors import MAX_HEADER, MAX_TENSORS, SIZES, array_of, corrupt, read_bytes, read_header

VERSION = 1
_BYTES = Path("<bytes>")  # what errors call a checkpoint that is no file
_SHOWN = 20  # variables that do not fit, one by one
_DTYPES: Mapping[str, str] = {"f32": "F32", "f64": "F64", "i32": "I32", "i64": "I64", "bool": "BOOL"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is read of the facts again."""

    model: str | None
    hypers: Mapping[str, Any]
    sizes: Mapping[str, int]
    seed: int
    epochs_done: int
    progress: Progress | None
    tensors: Mapping[str, str]
    schema: Schema | None = None


def save(network: Network, path: str | PathLike[str], variables: Mapping[str, Array] | None = None) -> None:
    """Write all variables and where training stands; or a copy of the variables from the end of an earlier epoch."""
    with network.workspace.lock:
        write(Path(path), *_parts(network, Path(path), variables))


def to_bytes(network: Network) -> bytes:
    """What `save` writes to a file."""
    with network.workspace.lock:
        return b"".join(_parts(network, _BYTES))


def _parts(
    network: Network, path: Path, variables: Mapping[str, Array] | None = None
) -> tuple[bytes | memoryview, ...]:
    """A checkpoint, piece by piece; `path` is for errors. Called with the lock held."""
    facts_now = _facts(network)
    if variables is not None:
        facts_now |= {"progress": None, "epochs_done": int(variables.get("train/epoch", network.epochs_done))}
    variables = network.variables if variables is None else variables
    table: dict[str, Any] = {}
    digests: dict[str, str] = {}
    offset = 0
    for v in network.manifest.variables:
        array = variables[v.path]
        table[v.path] = {
            "dtype": _DTYPES[v.dtype],
            "shape": list(v.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        digests[v.path] = hashlib.sha256(_bytes(array)).hexdigest()
        offset += array.nbytes
    facts = json.dumps({**facts_now, "tensors": digests})
    metadata = {"nnc": facts, "sha256": _digest(facts, table)}
    header = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER or len(table) > MAX_TENSORS:
        raise error(
            "E0605",
            f"{path}: a checkpoint of {len(table):,} variables and {human(len(header))} of facts "
            f"could not be read again; at most {MAX_TENSORS:,} and {human(MAX_HEADER)} can be",
            kind=ResourceError,
        )
    tensors = [_bytes(variables[v.path]) for v in network.manifest.variables]
    return len(header).to_bytes(8, "little"), header, *tensors


def _bytes(array: Array) -> memoryview:
    """The little-endian bytes of a variable."""
    plain = array if array.dtype.itemsize == 1 or np.little_endian else array.byteswap()
    return plain.reshape(-1).view(np.uint8).data


def _facts(network: Network) -> dict[str, Any]:
    m = network.manifest
    return {
        "version": VERSION,
        "model": m.model,
        "dtype": m.dtype,
        "hypers": {h.name: h.value for h in m.hypers},
        "sizes": m.sizes,
        "seed": network.seed,
        "epochs_done": network.epochs_done,
        "progress": asdict(network.progress) if network.progress is not None else None,
        "schema": asdict(network.schema) if network.schema is not None else None,
        "sources": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in m.sources.items()},
    }


def _digest(facts: str, table: Mapping[str, Any]) -> str:
    return hashlib.sha256((facts + json.dumps(table, sort_keys=True)).encode("utf-8", "surrogatepass")).hexdigest()


def load(network: Network, path: str | PathLike[str]) -> None:
    """Read a checkpoint, or the best of a run's folder, into the model: all of it or, with a DataError, nothing. A
    model that is not trained takes what `load_learned` takes, and the seed."""
    path = of_run(Path(path))
    with reading(path) as f:
        _take(network, f, path)


def from_bytes(network: Network, data: bytes) -> None:
    """Take over what `to_bytes` made, as `load` does a file."""
    _take(network, BytesIO(data), _BYTES)


def _take(network: Network, f: IO[bytes], path: Path) -> None:
    trains = network.manifest.train is not None
    facts, table, start = _header(f, path, network.manifest.train)
    wanted, used = ({v.path: v for v in network.manifest.variables}, table) if trains else _learned(network, table)
    _fits(path, wanted, used, facts)
    check_bytes(sum(nbytes(v.shape, NUMPY[v.dtype]) for v in wanted.values()), str(path))
    loaded = _tensors(f, path, table, start, wanted, facts.tensors)
    with network.workspace.lock:
        network.variables.write({wanted[name].path: array for name, array in loaded.items()})
        network.reseed(facts.seed)
        network.epochs_done, network.progress = facts.epochs_done, facts.progress if trains else None
        if network.schema != facts.schema:
            network.schema, network.dataset = facts.schema, None  # to be read as it says


def load_learned(network: Network, path: str | PathLike[str]) -> dict[str, str]:
    """Take parameters, state and normalisation of a checkpoint, and no more: it may be of another optimiser. Where it
    has averages of parameters, those are the parameters. Gives the names of what was taken, by ours."""
    path = of_run(Path(path))
    with reading(path) as f:
        facts, table, start = _header(f, path)
        wanted, learned = _learned(network, table)
        _fits(path, wanted, learned, facts)
        loaded = _tensors(f, path, table, start, wanted, facts.tensors)
    network.assign({wanted[n].path: a for n, a in loaded.items()})
    if network.schema != facts.schema:
        network.schema, network.dataset = facts.schema, None
    return {v.path: name for name, v in wanted.items()}


def read_learned(path: Path) -> tuple[str | None, dict[str, Array]]:
    """The name of the model that any program's checkpoint is of; and what that learned, by its own names: parameters,
    or where it has them their averages, state and normalisation."""
    path = of_run(path)
    with reading(path) as f:
        facts, table, start = _header(f, path)
        names = [f"average/{n}" if f"average/{n}" in table else n for n in table if _is_learned(n)]
        check_bytes(sum(prod(table[n]["shape"]) * SIZES[table[n]["dtype"]] for n in names), str(path))
        found = _tensors(f, path, table, start, names, facts.tensors)
    return facts.model, {n.removeprefix("average/"): a for n, a in found.items()}


def _is_learned(name: str) -> bool:
    """Whether a tensor is a parameter, state or normalisation: neither training's own nor an optimiser's."""
    return "/" not in name or name.startswith("normalize/")


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one of ours, whatever its name."""
    try:
        with reading(path) as f:
            return "nnc" in read_header(f, path)[0]
    except NncError:
        return False


def _learned(network: Network, table: Mapping[str, Any]) -> tuple[dict[str, Variable], dict[str, Any]]:
    """What a file has for the model beside training: the variable by the name of its tensor, and that part of the table
    with what else it must have a place for."""
    ours = {v.path: v for v in network.manifest.variables if v.role in ("weight", "bias", "state", "normalize")}
    wanted = {f"average/{n}" if f"average/{n}" in table else n: v for n, v in ours.items()}
    kept = {n for n in table if _is_learned(n) and f"average/{n}" not in table}
    return wanted, {n: e for n, e in table.items() if n in wanted or n in kept}


def _tensors(
    f: IO[bytes],
    path: Path,
    table: Mapping[str, Any],
    start: int,
    names: Iterable[str],
    digests: Mapping[str, str],
) -> dict[str, Array]:
    loaded: dict[str, Array] = {}
    for name in names:
        data = read_bytes(f, table[name], start)
        if hashlib.sha256(data).hexdigest() != digests.get(name):
            raise corrupt(path, f"the tensor `{name}` with the checksum it was saved with", "other bytes")
        loaded[name] = array_of(data, table[name])
    return loaded


def of_run(path: Path) -> Path:
    """The checkpoint a path names: itself, or the best (or else last) one of a run."""
    if not path.is_dir():
        return path
    for name in ("best.nnw", "last.nnw"):
        if (found := part(path, name)).exists():
            return found
    raise error("E0622", f"{path}: no checkpoint in this run", kind=DataError)


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_regular(path) as f:
            yield f
    except OSError as e:
        if isinstance(e, NncError):
            raise
        reason = "no such file" if isinstance(e, FileNotFoundError) else (e.strerror or str(e)).lower()
        raise error("E0622", f"{path}: {reason}", kind=DataError) from e


def _header(f: IO[bytes], path: Path, spec: TrainSpec | None = None) -> tuple[Facts, dict[str, Any], int]:
    """Facts, tensor table and where the tensors begin; everything that does not need the tensors is checked. With a
    `spec` training goes on from these facts."""
    metadata, table, start = read_header(f, path)
    facts_text, digest = metadata.get("nnc"), metadata.get("sha256")
    if not isinstance(facts_text, str) or not isinstance(digest, str):
        raise corrupt(path, "a checkpoint of nnc", "a safetensors file without its facts")
    if _digest(facts_text, table) != digest:
        raise corrupt(path, "a header with the checksum it was saved with", "another header")
    try:
        facts = parse(facts_text)
        if (version := facts["version"]) != VERSION:
            raise corrupt(path, f"checkpoint version {VERSION}", short(version))
        return _checked(read(Facts, facts, least=0), spec), table, start
    except Wrong as e:
        raise error("E0623", f"{path}: {e}", kind=DataError) from e
    except (ValueError, TypeError, KeyError) as e:
        raise corrupt(path, "facts in JSON", str(e)[:80]) from e


def _checked(facts: Facts, spec: TrainSpec | None) -> Facts:
    """What is more than the type of a field (Wrong)."""
    p = facts.progress
    seeds = {"seed": facts.seed, **({"progress.seed": p.seed} if p is not None else {})}
    for name, seed in seeds.items():
        if seed > MAX_SEED:
            raise Wrong(name, "a whole number from 0 to 2^31-1", short(seed))
    if p is None or spec is None:
        return facts
    if p.position > p.examples:
        raise Wrong("progress.position", f"at most the {p.examples} examples of an epoch", short(p.position))
    if p.position == 0:  # nothing is added up yet: the program may have got another metric since
        p.totals = [0.0] * len(spec.metrics)
    if len(p.totals) != len(spec.metrics):
        raise Wrong("progress.totals", f"a number for each of {len(spec.metrics)} metrics", f"{len(p.totals)}")
    if p.batch == 0:
        raise Wrong("progress.batch", "at least 1", "0")
    if p.shards is not None and (p.shards < 1 or p.shards & (p.shards - 1)):
        raise Wrong("progress.shards", "a power of two", short(p.shards))
    for k, row in enumerate(p.history):
        for name in ("epoch", "seconds"):
            check(float, row.get(name), f"progress.history[{k}].{name}")
        check(dict[str, float], row, f"progress.history[{k}]")
    return facts


def _fits(path: Path, wanted: Mapping[str, Variable], table: Mapping[str, Any], facts: Facts) -> None:
    """The file has the model's variables, all of them and no others, in the same dtype and shape (E0624 with a
    diagnostic for each that differs)."""
    wrong = []
    for name, v in wanted.items():
        entry = table.get(name)
        if entry is None:
            wrong.append(f"the variable `{name}`, found none of that name")
        elif (entry["dtype"], tuple(entry["shape"])) != (_DTYPES[v.dtype], v.shape):
            found = next((o for o, n in _DTYPES.items() if n == entry["dtype"]), entry["dtype"])
            wrong.append(f"`{name}` as {v.dtype}{list(v.shape)}, found {found}{entry['shape']}")
    wrong += [f"only the variables of the model, found `{name}` as well" for name in table if name not in wanted]
    if wrong:
        shown = [Diagnostic("E0624", f"{path}: expected {w}") for w in wrong[:_SHOWN]]
        more = f"; {len(wrong) - _SHOWN} more differ" if len(wrong) > _SHOWN else ""
        help = f"the checkpoint is of the model `{facts.model}` with {_settings(facts)}{more}"
        raise DataError([*shown[:-1], replace(shown[-1], help=(help,))])


def _settings(facts: Facts) -> str:
    settings = [f"{k} = {v}" for k, v in (*facts.hypers.items(), *facts.sizes.items())]
    return ", ".join(settings) or "no hypers"
