"""What the processes of a training did when: their last steps as a trace, and how much of the exchange cost no time.

In: spans of each process, (what, begin, end) in seconds of a clock that all began together. Out: a trace that Perfetto
and Chrome show ("Trace Event Format", Chromium, 2016), one process below the other.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ..distributed.ranks import Ranks
from ..store.files import write

LAST = 4096  # spans that a process remembers
_EXCHANGE = "exchange"
Span = tuple[str, float, float]


class Spans(deque[Span]):
    """The last things that a process did; its clock begins when it is made."""

    def __init__(self) -> None:
        super().__init__(maxlen=LAST)
        self.start = perf_counter()

    def add(self, what: str, begin: float) -> None:
        """Something that ends now; `begin` is what `perf_counter` said."""
        self.append((what, begin - self.start, perf_counter() - self.start))


def write_trace(path: Path, spans: Spans, ranks: Ranks | None) -> None:
    """The spans of all processes, written by the first."""
    every = [list(spans)] if ranks is None else ranks.gather(list(spans))
    if ranks is None or ranks.rank == 0:
        events = [event for rank, mine in enumerate(every) for event in _events(rank, mine)]
        told = {"processes": len(every), "beside": beside(every)}
        write(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": told}).encode())


def _events(rank: int, spans: Iterable[Span]) -> Iterable[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}}
    for what, begin, end in spans:
        thread = 2 if what.startswith(_EXCHANGE) else 1
        yield {"ph": "X", "name": what, "pid": rank, "tid": thread, "ts": begin * 1e6, "dur": (end - begin) * 1e6}


def beside(every: Sequence[Sequence[Span]]) -> float | None:
    """The share of the time of exchanges in which a process computed meanwhile; None where nothing was exchanged."""
    total = hidden = 0.0
    for spans in every:
        computing = sorted((b, e) for what, b, e in spans if not what.startswith(_EXCHANGE))
        for _, begin, end in (s for s in spans if s[0].startswith(_EXCHANGE)):
            total += end - begin
            hidden += sum(max(0.0, min(e, end) - max(b, begin)) for b, e in computing if e > begin and b < end)
    return hidden / total if total else None
