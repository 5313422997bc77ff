"""One contender of one row, in a process of its own: `python -m tests.bench.contender WHO ROW THREADS FOLDER`.

It takes its cores, makes what it is, and answers in lines of JSON: first the seconds until its first result, then, for
each line `{"do": "run"}`, the seconds of a step, and for `{"do": "memory"}` the most memory there was since the first
call: of the whole process, and over what that had before. It ends with its standard input. WHO may also be `export`,
which writes the ONNX model, and `machine`, which measures that.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

SAMPLE = 0.02  # seconds that a sample takes at least
CHECKS = 5  # steps of training whose losses are compared


def pin(threads: int) -> None:
    """Take so many of the cores, the last ones: thread pools that heed no variable heed this."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def memory(which: str) -> int:
    """Bytes: `VmRSS`, what is resident, or `VmHWM`, the most there was; where the system does not say, the latter."""
    try:
        line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(which))
        return int(line.split()[1]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """The most memory there was is counted anew, so that what drew the weights does not count."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def seconds_of(run: Any, repetitions: int) -> float:
    begun = time.perf_counter()
    for _ in range(repetitions):
        run()
    return time.perf_counter() - begun


def repetitions_of(run: Any) -> int:
    """How often to run it in a sample; the first runs are still slow."""
    repetitions = 1
    while (spent := seconds_of(run, repetitions)) < SAMPLE:
        repetitions = max(repetitions + 1, int(repetitions * min(10, 1.1 * SAMPLE / spent)))
    return repetitions


def work(who: str, name: str, threads: int, folder: Path, say: Any) -> None:
    if who == "machine":
        from nnc.compiler.native.machine import measured

        say(**measured(threads))
        return
    import numpy as np

    from .peers import MODULES
    from .rows import ROWS

    row = ROWS[name]
    peer = import_module(f".peers.{'pytorch' if who == 'export' else MODULES[who][0]}", __package__)
    arrays = row.arrays()
    if who == "export":
        peer.export(row, arrays, row.weights(), folder)
        say()
        return
    before = memory("VmRSS")
    weights = row.weights()
    begun = time.perf_counter()
    contender = peer.contender(who, row, arrays, weights, threads, folder)
    made = time.perf_counter()
    forget_peak()
    first = time.perf_counter()
    results = contender.result(0)
    ready = made - begun + time.perf_counter() - first
    if row.trains:
        results += [r for k in range(1, CHECKS) for r in contender.result(k % row.steps)]
    np.savez(folder / f"{who}.npz", *results)
    del results
    say(ready=ready)
    repetitions = 0
    for line in sys.stdin:
        if json.loads(line)["do"] == "memory":
            say(peak=memory("VmHWM"), over=memory("VmHWM") - before)
            continue
        repetitions = repetitions or repetitions_of(contender.run)
        say(seconds=seconds_of(contender.run, repetitions) / repetitions / row.steps)


def main() -> None:
    who, name, threads, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        pin(int(threads))
        work(who, name, int(threads), Path(folder), say)
    except Exception as e:
        text = f"{type(e).__name__}: {e}".strip()
        say(error=text.splitlines()[0])
        raise


if __name__ == "__main__":
    main()
