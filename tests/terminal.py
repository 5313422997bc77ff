"""A terminal: a command run in a pseudo-terminal of so many columns, and what is on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyte

_LINES = 200  # of the screen: nothing that a test prints leaves it
NNC = [sys.executable, "-c", "from nnc.runtime.cli import entry_point; entry_point()"]


@dataclass
class Capture:
    """What a command left on the screen, the screens before that, and what it wrote."""

    columns: int
    screen: str = ""
    frames: list[str] = field(default_factory=list)
    raw: bytes = b""
    code: int = -1


def capture(arguments: list[str], columns: int, folder: Path, env: Mapping[str, str] | None = None) -> Capture:
    """Run `nnc` with these arguments in a folder."""
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, columns, 0, 0))
    known = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(_LINES)}
    known = {k: v for k, v in known.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [*NNC, *arguments], stdin=inside, stdout=inside, stderr=inside, cwd=folder, env={**known, **(env or {})}
    )
    os.close(inside)
    screen = pyte.Screen(columns, _LINES)
    stream, found = pyte.ByteStream(screen), Capture(columns)
    while data := _read(outside):
        found.raw += data
        for part in filter(None, re.split(rb"(?=\r)", data)):  # a line that is drawn over is a screen of its own
            stream.feed(part)
            found.frames.append(_text(screen))
    os.close(outside)
    found.code, found.screen = process.wait(), _text(screen)
    return found


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def _text(screen: pyte.Screen) -> str:
    return "\n".join(line.rstrip() for line in screen.display).rstrip("\n")
