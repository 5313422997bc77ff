"""Diagnostics as HTML: the text of `render`, its colours as styles that are read on light and on dark ground."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from .diagnostics import Diagnostic
from .render import render

_COLORS = {"31": "#d1453b", "33": "#b98a00", "34": "#3b78c4"}
_PAINTED = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.DOTALL)


def html(diagnostics: Iterable[Diagnostic]) -> str:
    """What a notebook shows of diagnostics."""
    text = escape("\n\n".join(render(d, color=True) for d in diagnostics), quote=False)
    return f'<pre style="line-height:1.25">{_PAINTED.sub(_styled, text)}</pre>'


def _styled(found: re.Match[str]) -> str:
    codes, text = found[1].split(";"), found[2]
    color = next((f";color:{_COLORS[c]}" for c in codes if c in _COLORS), "")
    return f'<span style="font-weight:bold{color}">{text}</span>'
