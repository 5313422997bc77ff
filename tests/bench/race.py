"""Side by side, one thread: what the benchmarks share. It is imported first, because it limits the threads of NumPy,
PyTorch and JAX before these are.

The contenders do the same work: losses after training are compared, so that nobody is timed on other work. The rounds
are interleaved, so that a noisy machine is noisy for all; the figure is the median over the rounds. Peers that are not
installed are left out.
"""

from __future__ import annotations

import os

os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
)  # before any import

if hasattr(os, "sched_setaffinity"):  # XLA's own thread pool heeds nothing else
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Contender = Callable[[], float]  # trains one epoch, returns its mean loss


def arguments(doc: str, contenders: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=contenders)
    return parser.parse_args()


def race(name: str, steps: int, options: argparse.Namespace, makers: Mapping[str, Callable[[], Contender]]) -> None:
    """Make the contenders, compare their losses, and print what a step takes each."""
    print(name)
    made: dict[str, Contender] = {}
    for who in options.only:
        try:
            made[who] = makers[who]()
        except ImportError:
            print(f"  {who}: not installed")
    first = {who: run() for who, run in made.items()}  # warm-up and compilation
    spread = max(first.values()) - min(first.values())
    assert spread < 1e-3 * max(1.0, *first.values()), f"they do not do the same work: {first}"
    times: dict[str, list[float]] = {who: [] for who in made}
    for _ in range(options.rounds):
        for who, run in made.items():
            begun = time.perf_counter()
            run()
            times[who].append((time.perf_counter() - begun) / steps * 1e6)
    median = {who: statistics.median(t) for who, t in times.items()}
    for who, t in times.items():
        ratio = f"  nnc is {median['nnc'] / median[who]:.2f} of it" if who != "nnc" and "nnc" in median else ""
        print(f"  {who:20} {median[who]:9.2f} us a step  (min {min(t):.2f}, max {max(t):.2f}){ratio}")


def torch_epoch(optimizer: Any, loss_of: Callable[[Any, Any], Any], batches: Sequence[tuple[Any, Any]]) -> Contender:
    """A loop of PyTorch's steps."""

    def run() -> float:
        total = 0.0
        for x, target in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, target)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / len(batches)

    return run
