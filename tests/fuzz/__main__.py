"""`python -m tests.fuzz`: random programs, or mutants of files, judged by hand."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from functools import partial

from .generator import generate
from .judge import CHECKS, Verdict, judge
from .mutants import judged_mutant, mutant
from .program import Program
from .runner import verdicts
from .shrinker import shrink

ROTA = (  # all is asked of some programs, something of each
    ("meaning", "compiled"), ("compiled", "gradients"), ("meaning", "passes", "compiled"), ("compiled", "gradients"),
    ("meaning", "single"), ("gradients", "passes"), ("meaning", "unoptimised"), ("gradients", "threads"),
)  # fmt: skip


def judged(seed: int, number: int, full: bool = False, guard_pages: bool = False) -> Verdict:
    """The verdict on one program."""
    return judge(generate(seed, number), checks_of(number, full, guard_pages), guard_pages)


def shrunk(seed: int, number: int, signature: str, full: bool, guard_pages: bool) -> Program:
    """The smallest program found that fails as this one does; each is judged in a process of its own."""
    program = generate(seed, number)
    checks = checks_of(number, full, guard_pages)

    def fails(smaller: Program) -> bool:
        ((_, verdict),) = verdicts(lambda _: judge(smaller, checks, guard_pages), [0])
        return verdict.kind == "failed" and _kind(verdict.signature) == _kind(signature)

    return shrink(program, fails)


def _kind(signature: str) -> str:
    """What stays as a program gets smaller: of a raw exception its place, of a wrong value what is wrong."""
    return signature if signature.startswith("raised: ") else signature.split(" at ")[0]


def checks_of(number: int, full: bool, guard_pages: bool) -> tuple[str, ...]:
    """All is asked of some programs, something of each."""
    if guard_pages:
        return ("compiled", "single", "gradients") if full else ("compiled",)
    return CHECKS if full else ROTA[number % len(ROTA)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first program's number")
    parser.add_argument("--only", type=int, help="one program: all checks, its text, what is wrong with it")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--full", action="store_true", help="all checks on each program")
    parser.add_argument("--guard-pages", action="store_true", help="buffers between pages that may not be touched")
    parser.add_argument("--shrink", action="store_true", help="make what fails small")
    parser.add_argument("--mutants", type=int, help="judge so many mutants of `.nn` files instead")
    options = parser.parse_args()
    if options.mutants is not None:
        options.programs = options.mutants
    if options.only is not None:
        options.first, options.programs, options.full = options.only, 1, True
        print(mutant(options.seed, options.only)[1] if options.mutants else generate(options.seed, options.only))
    judges = partial(judged, options.seed, full=options.full, guard_pages=options.guard_pages)
    if options.mutants:
        judges = partial(judged_mutant, options.seed)
    numbers = range(options.first, options.first + options.programs)
    return report(verdicts(judges, numbers, options.jobs), options)


def report(found, options: argparse.Namespace) -> int:
    """Prints the first of each kind of failure, and how many there were of each; 1 where there is one."""
    kinds: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    begin = time.monotonic()
    done = 0
    for number, verdict in found:
        done += 1
        if done % 200 == 0:
            print(f"{done} judged, {sum(refused.values())} refused, {sum(kinds.values())} failed", flush=True)
        if verdict.kind == "refused":
            refused[verdict.signature] += 1
        elif verdict.kind == "failed":
            kinds[verdict.signature] += 1
            if kinds[verdict.signature] <= 3:
                where = f"number {number} of seed {options.seed}"
                print(f"\n--- {where}: {verdict.signature}\n{verdict.message}", flush=True)
                if options.shrink and not options.mutants:
                    small = shrunk(options.seed, number, verdict.signature, options.full, options.guard_pages)
                    print(small, flush=True)
    for what, counter in (("refused", refused), ("failed", kinds)):
        for signature, count in counter.most_common():
            print(f"{what}: {count} {signature}")
    print(
        f"{done} programs, {sum(refused.values())} refused, {sum(kinds.values())} failed, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
