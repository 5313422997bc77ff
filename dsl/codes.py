"""What each error code means, at length: one page a code, under `explain/`."""

from __future__ import annotations

from pathlib import Path

PAGES = Path(__file__).with_name("explain")


def explain(code: str) -> str | None:
    """The page for `E0301`, in Markdown; None for what is not a code."""
    code = code.upper()
    return (PAGES / f"{code}.md").read_text(encoding="utf-8") if code in known() else None


def known() -> tuple[str, ...]:
    """All codes that have a page, in order."""
    return tuple(sorted(page.stem for page in PAGES.glob("E*.md")))
