"""What a build was made from, by content: enough to make it again and to know that it is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version

from ...compiler.manifest import Manifest
from ...compiler.native import objects as native
from ...compiler.settings import Settings
from ...dsl.files import digest_of


def lock(
    m: Manifest,
    settings: Settings,
    target: tuple[str, str],
    prefix: str,
    names: Sequence[str],
    trained: str | None,
    files: Mapping[str, bytes],
) -> str:
    """As JSON: versions, settings, and the sha256 of what went in and came out."""
    facts = {
        "nnc": version("nnc"),
        "compiler": native.version(),
        "target": target[0],
        "optimize": target[1],
        "name": prefix,
        "entries": list(names),
        "settings": {
            "model": m.model,
            "hyper": {h.name: h.value for h in m.hypers},
            "sizes": dict(m.sizes),
            "dtype": m.dtype,
            "precise": settings.precise,
        },
        "sources": {_base(name): _digest(text.encode()) for name, text in m.sources.items()},
        "arrays": {_base(name): digest for name, digest in m.files.items()},
        "weights": {_base(trained): digest_of(trained)} if trained is not None else {},
        "files": {name: _digest(data) for name, data in files.items()},
    }
    return json.dumps(facts, indent=2) + "\n"


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()
