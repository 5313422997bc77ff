"""What a build was made from, by content: enough to make it again and to know that it is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...compiler.manifest import Manifest
from ...compiler.native import objects as native
from ...compiler.settings import Settings
from ...dsl.errors import DataError, error
from ..store.checkpoint import of_run, reading
from ..store.facts import Wrong, load, read


@dataclass(frozen=True, slots=True)
class Lock:
    """Versions, settings, and the sha256 by name of what went in and came out. Of the `sources` the first is the file
    itself."""

    nnc: str
    compiler: str
    target: str
    optimize: str
    as_text: bool
    name: str
    entries: tuple[str, ...]
    model: str | None
    dtype: str
    precise: bool
    weights_dtype: str
    hyper: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def lock(
    m: Manifest,
    settings: Settings,
    target: tuple[str, str, bool],
    prefix: str,
    names: Sequence[str],
    trained: str | None,
    files: Mapping[str, bytes],
) -> Lock:
    """Of a build from now."""
    weights = of_run(Path(trained)) if trained is not None else None
    return Lock(
        version("nnc"), native.version(), *target, prefix, tuple(names), m.model, m.dtype, settings.precise,
        settings.weights_dtype,
        {h.name: h.value for h in m.hypers}, dict(m.sizes),
        {Path(name).name: digest(text.encode()) for name, text in m.sources.items()},
        {Path(name).name: of for name, of in m.files.items()},
        {weights.name: digest_of(weights)} if weights is not None else {},
        {name: digest(data) for name, data in files.items()},
    )  # fmt: skip


def read_lock(path: Path) -> Lock:
    """Raises `DataError`: E0622 where it cannot be read, E0623 where it is no lock."""
    try:
        return read(Lock, load(path))
    except OSError as e:
        raise error("E0622", f"{path}: {(e.strerror or str(e)).lower()}", kind=DataError) from e
    except ValueError as e:
        said = str(e) if isinstance(e, Wrong) else f"expected the lock of a build, found {str(e)[:80]}"
        raise error("E0623", f"{path}: {said}", kind=DataError) from e


def digest_of(path: Path) -> str:
    """Of a checkpoint's bytes."""
    with reading(path) as f:
        return digest(f.read())


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()
