"""What code is made for on this machine, and by which LLVM: asked once, and kept in the cache while the machine runs.

Who finds all that it needs in the cache does not load LLVM, which takes 45 MB and a twentieth of a second.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ...dsl.record import dataclass
from .cache import Cache
from .target import Target

_BOOT, _PROCESSORS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/cpuinfo")
_VARIES = ("processor", "cpu MHz", "bogomips", "BogoMIPS", "apicid", "initial apicid", "core id", "physical id")


@dataclass(frozen=True, slots=True)
class Host:
    """`version` is that of LLVM, part of every key of the cache."""

    target: Target
    version: str


def host(name: str, store: Cache | None, key: Callable[..., str]) -> Host:
    """The target of this name. Raises `UnsupportedError` (E0504) as `objects.target` does."""
    known = _known() if store is not None else None
    at = key("host", name, *known) if known is not None else ""
    if store is not None and known is not None and (stored := store.get(at)) is not None:
        return _read(stored)
    from . import objects

    found = Host(objects.target(name), objects.version())
    if store is not None and known is not None:
        store.put(at, _written(found))
    return found


def _known() -> tuple[object, ...] | None:
    """What tells a processor, a start of its system and an installed LLVM from others; None where the system does not
    say. NumPy asks the processor itself, of which an emulator or a debugger may show less than the system."""
    llvmlite = find_spec("llvmlite")
    if llvmlite is None or llvmlite.origin is None:
        return None
    try:
        boot = _BOOT.read_text()
        with _PROCESSORS.open() as file:
            first = [line for line in takewhile(str.strip, file) if line.partition("\t")[0].strip() not in _VARIES]
        files = sorted(Path(llvmlite.origin).parent.joinpath("binding").glob("libllvmlite*"))
        made = [(str(f), s.st_size, s.st_mtime_ns) for f in files for s in (f.stat(),)]
    except (OSError, ValueError):
        return None
    return (platform.machine(), boot, first, made, _shown()) if made and first else None


def _shown() -> list[str]:
    """What NumPy has found that the processor can do."""
    module = getattr(np, "_core", None) or np.core
    return sorted(f for f, on in module._multiarray_umath.__cpu_features__.items() if on)


def _written(host: Host) -> bytes:
    fields = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(host.target).items()}
    return json.dumps({"target": fields, "version": host.version}).encode()


def _read(stored: bytes) -> Host:
    found = json.loads(stored)
    fields: dict[str, Any] = {k: frozenset(v) if isinstance(v, list) else v for k, v in found["target"].items()}
    return Host(Target(**fields), found["version"])
