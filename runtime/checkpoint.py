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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..dsl.diagnostics import DataError, NncError, error
from .arrays import NUMPY, Array, check_bytes, nbytes
from .files import replacing
from .safetensors import corrupt, read_header
from .table import Schema

if TYPE_CHECKING:
    from ..compiler.manifest import Variable
    from .model import Model

VERSION = 1
_DTYPES: Mapping[str, str] = {"f32": "F32", "f64": "F64", "i32": "I32", "i64": "I64", "bool": "BOOL"}


def save(model: Model, path: str | PathLike[str], variables: Mapping[str, Array] | None = None) -> None:
    """Write all variables and where training stands; or a copy of the variables from the end of an earlier epoch."""
    with model.workspace.lock:
        facts_now = _facts(model)
        if variables is not None:
            facts_now |= {"progress": None, "epochs_done": int(variables.get("train/epoch", model.epochs_done))}
        variables = model.variables if variables is None else variables
        table: dict[str, Any] = {}
        digests: dict[str, str] = {}
        offset = 0
        for v in model.manifest.variables:
            array = variables[v.path]
            table[v.path] = {"dtype": _DTYPES[v.dtype], "shape": list(v.shape),
                             "data_offsets": [offset, offset + array.nbytes]}
            digests[v.path] = hashlib.sha256(_bytes(array)).hexdigest()
            offset += array.nbytes
        facts = json.dumps({**facts_now, "tensors": digests})
        metadata = {"nnc": facts, "sha256": _digest(facts, table)}
        header = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        with replacing(Path(path)) as f:
            f.write(len(header).to_bytes(8, "little"))
            f.write(header)
            for v in model.manifest.variables:
                f.write(_bytes(variables[v.path]))


def _bytes(array: Array) -> memoryview:
    """The little-endian bytes of a variable."""
    plain = array if array.dtype.itemsize == 1 or np.little_endian else array.byteswap()
    return plain.reshape(-1).view(np.uint8).data


def _facts(model: Model) -> dict[str, Any]:
    m = model.manifest
    return {
        "version": VERSION, "model": m.model, "dtype": m.dtype, "hypers": {h.name: h.value for h in m.hypers},
        "sizes": m.sizes, "seed": model.seed, "epochs_done": model.epochs_done,
        "progress": asdict(model.progress) if model.progress is not None else None,
        "schema": asdict(model.schema) if model.schema is not None else None,
        "sources": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in m.sources.items()},
    }


def _digest(facts: str, table: Mapping[str, Any]) -> str:
    return hashlib.sha256((facts + json.dumps(table, sort_keys=True)).encode()).hexdigest()


def load(model: Model, path: str | PathLike[str]) -> None:
    """Read a checkpoint, or the best of a run's folder, into the model: all of it or, with a DataError, nothing. A
    model that is not trained takes what `load_learned` takes, and the seed."""
    from .loop import Progress

    path = of_run(Path(path))
    with reading(path) as f:
        facts, table, start = _header(f, path)
        trains = model.manifest.train is not None
        wanted, used = ({v.path: v for v in model.manifest.variables}, table) if trains else _learned(model, table)
        _fits(path, wanted, used, facts)
        check_bytes(sum(nbytes(v.shape, NUMPY[v.dtype]) for v in wanted.values()), str(path))
        try:
            progress = Progress(**facts["progress"]) if trains and facts["progress"] is not None else None
            seed, epochs_done = int(facts["seed"]), int(facts["epochs_done"])
            schema = Schema.of_json(facts.get("schema"))
            digests = dict(facts["tensors"])
        except (KeyError, TypeError, ValueError) as e:
            raise corrupt(path, "complete facts about training", e) from e
        loaded = _tensors(f, path, table, start, wanted, digests)
    with model.workspace.lock:
        for name, array in loaded.items():
            model.variables[wanted[name].path][...] = array
        model.reseed(seed)
        model.epochs_done, model.progress = epochs_done, progress
        if model.schema != schema:
            model.schema, model.dataset = schema, None  # to be read as it says


def load_learned(model: Model, path: str | PathLike[str]) -> None:
    """Take parameters, state and normalisation of a checkpoint, and no more: it may be of another optimiser. Where it
    has averages of parameters, those are the parameters."""
    path = of_run(Path(path))
    with reading(path) as f:
        facts, table, start = _header(f, path)
        wanted, learned = _learned(model, table)
        _fits(path, wanted, learned, facts)
        try:
            schema, digests = Schema.of_json(facts.get("schema")), dict(facts["tensors"])
        except (KeyError, TypeError, ValueError) as e:
            raise corrupt(path, "complete facts about training", e) from e
        loaded = _tensors(f, path, table, start, wanted, digests)
    model.assign({wanted[n].path: a for n, a in loaded.items()})
    if model.schema != schema:
        model.schema, model.dataset = schema, None


def _learned(model: Model, table: Mapping[str, Any]) -> tuple[dict[str, Variable], dict[str, Any]]:
    """What a file has for the model beside training: the variable by the name of its tensor, and that part of the table
    with what else it must have a place for."""
    ours = {v.path: v for v in model.manifest.variables if v.role in ("weight", "bias", "state", "normalize")}
    wanted = {f"average/{n}" if f"average/{n}" in table else n: v for n, v in ours.items()}
    kept = {n for n in table if n.startswith("normalize/") or ("/" not in n and f"average/{n}" not in table)}
    return wanted, {n: e for n, e in table.items() if n in wanted or n in kept}


def _tensors(f: IO[bytes], path: Path, table: Mapping[str, Any], start: int, wanted: Mapping[str, Variable],
             digests: Mapping[str, str]) -> dict[str, Array]:
    loaded: dict[str, Array] = {}
    for name, v in wanted.items():
        begin, end = table[name]["data_offsets"]
        f.seek(start + begin)
        data = f.read(end - begin)
        if hashlib.sha256(data).hexdigest() != digests.get(name):
            raise corrupt(path, f"the tensor `{name}` with the checksum it was saved with", "other bytes")
        loaded[name] = np.frombuffer(data, NUMPY[v.dtype].newbyteorder("<")).reshape(v.shape)
    return loaded


def of_run(path: Path) -> Path:
    """The checkpoint a path names: itself, or the best (or else last) one of a run."""
    if not path.is_dir():
        return path
    for name in ("best.nnw", "last.nnw"):
        if (path / name).exists():
            return path / name
    raise error("E0622", f"{path}: no checkpoint in this run", kind=DataError)


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open(path, "rb") as f:
            yield f
    except OSError as e:
        if isinstance(e, NncError):
            raise
        reason = "no such file" if isinstance(e, FileNotFoundError) else (e.strerror or str(e)).lower()
        raise error("E0622", f"{path}: {reason}", kind=DataError) from e


def _header(f: IO[bytes], path: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Facts, tensor table and where the tensors begin; everything that does not need the tensors is checked."""
    metadata, table, start = read_header(f, path)
    facts_text, digest = metadata.get("nnc"), metadata.get("sha256")
    if not isinstance(facts_text, str) or not isinstance(digest, str):
        raise corrupt(path, "a checkpoint of nnc", "a safetensors file without its facts")
    if _digest(facts_text, table) != digest:
        raise corrupt(path, "a header with the checksum it was saved with", "another header")
    try:
        facts = json.loads(facts_text)
        version = facts["version"]
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise corrupt(path, "facts in JSON", str(e)[:80]) from e
    if version != VERSION:
        raise corrupt(path, f"checkpoint version {VERSION}", version)
    return facts, table, start


def _fits(path: Path, wanted: Mapping[str, Any], table: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """The file has the model's variables, all of them and no others, in the same dtype and shape."""
    def other(expected: str, found: str) -> NncError:
        return error("E0624", f"{path}: expected {expected}, found {found}", kind=DataError,
                     help=f"the checkpoint is of the model `{facts.get('model')}` with {_settings(facts)}")

    for name, v in wanted.items():
        entry = table.get(name)
        if entry is None:
            raise other(f"the variable `{name}`", "none of that name")
        if (entry["dtype"], tuple(entry["shape"])) != (_DTYPES[v.dtype], v.shape):
            found = next((o for o, n in _DTYPES.items() if n == entry["dtype"]), entry["dtype"])
            raise other(f"`{name}` as {v.dtype}{list(v.shape)}", f"{found}{entry['shape']}")
    for name in table:
        if name not in wanted:
            raise other("only the variables of the model", f"`{name}` as well")


def _settings(facts: Mapping[str, Any]) -> str:
    settings = [f"{k} = {v}" for part in ("hypers", "sizes") for k, v in (facts.get(part) or {}).items()]
    return ", ".join(settings) or "no hypers"
