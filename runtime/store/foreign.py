"""Files of other programs: arrays by name, of an .npz, a .safetensors, or a folder of these with an index.

In: a path. Out: the arrays, in the order of the file, also f16 and bf16, which is widened to f32. Such a folder is as
Hugging Face has it: `model.safetensors`, or `model.safetensors.index.json`, whose `weight_map` says in which file of
the folder each tensor is; no link is followed there. Nothing that is read here is ever run: pickles (`.pt`, `.pth`,
`.bin`, `.pkl`) are refused (E0621), with what turns them into safetensors where they are trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...dsl.errors import NncError
from ..call.arrays import check_bytes
from ..call.column import Array, Column
from ..data.files import malformed, unreadable
from ..data.npz import npz
from .checkpoint import reading
from .facts import load, short
from .files import part
from .safetensors import MAX_TENSORS, array_of, corrupt, read_bytes, read_header

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # what such a folder has, the one or the other
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def is_folder(path: Path) -> bool:
    """Whether it is a folder of safetensors, and not a run of ours."""
    return path.is_dir() and any((path / name).is_file() for name in (INDEX, WHOLE))


def read(path: Path) -> dict[str, Array]:
    """The arrays of a file or folder, by name and in order."""
    if path.is_dir():
        name = next((n for n in (INDEX, WHOLE) if (path / n).exists()), None)
        if name is None:
            raise malformed(path, f"a folder with {WHOLE} or {INDEX}", "neither")
        path = part(path, name)
    if path.name.endswith(".safetensors.index.json"):
        return _indexed(path)
    match path.suffix:
        case ".npz":
            return {n: c[:] if isinstance(c, Column) else c for n, c in npz(path).items()}
        case ".safetensors":
            return _tensors(path)
    if not path.exists():
        raise unreadable(path, FileNotFoundError())
    refuse_pickle(path)
    advice = "from Python: np.savez(path, **arrays) writes one"
    raise malformed(path, "a .npz or .safetensors file", path.suffix or "no suffix", help=advice)


def refuse_pickle(path: Path) -> None:
    """Say how a pickle becomes safetensors, where a path is of one."""
    if path.suffix not in PICKLES:
        return
    advice = (
        "a pickle runs code when it is read; where you trust it, this line of Python makes safetensors of it: "
        "import torch, safetensors.torch as s; s.save_file({k: v.clone().contiguous() for k, v in "
        f"torch.load({str(path)!r}, 'cpu', weights_only=True).items()}}, {str(path.with_suffix('.safetensors'))!r})"
    )
    raise malformed(path, "a .npz or .safetensors file", path.suffix, help=advice)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as e:
        raise unreadable(path, e) from e


def _tensors(path: Path, wanted: Iterable[str] | None = None) -> dict[str, Array]:
    """The tensors of a file: all, or those that an index says are in it."""
    with reading(path) as f:
        _, table, start = read_header(f, path)
        check_bytes(path.stat().st_size, str(path))
        names = table if wanted is None else wanted
        for name in names:
            if name not in table:
                raise corrupt(path, f"the tensor `{name}`, as the index says", "none of this name")
        return {name: array_of(read_bytes(f, table[name], start), table[name]) for name in names}


def _indexed(index: Path) -> dict[str, Array]:
    places = _places(index)
    files: dict[str, list[str]] = {}
    for name, file in places.items():
        files.setdefault(file, []).append(name)
    paths = {file: part(index.parent, file) for file in files}
    check_bytes(sum(map(_size, paths.values())), str(index))
    arrays: dict[str, Array] = {}
    for file, names in files.items():
        arrays |= _tensors(paths[file], names)
    return {name: arrays[name] for name in places}


def _places(index: Path) -> dict[str, str]:
    """The file of each tensor."""
    try:
        facts: Any = load(index)
    except OSError as e:
        if isinstance(e, NncError):
            raise
        raise unreadable(index, e) from e
    except ValueError as e:
        raise corrupt(index, "JSON with a `weight_map`", str(e)[:80]) from e
    places = facts.get("weight_map") if isinstance(facts, dict) else None
    if not isinstance(places, dict) or len(places) > MAX_TENSORS:
        raise corrupt(index, f"a `weight_map` of up to {MAX_TENSORS:,} tensors", short(places))
    for name, file in places.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or "/" in file or "\\" in file:
            raise corrupt(index, f"a .safetensors file of its folder as the place of `{name}`", short(file))
    return places
