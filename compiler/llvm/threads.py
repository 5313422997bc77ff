"""The thread pool, as LLVM IR: fork and join of a range of turns over a few threads.

Exported by `support`, for the runtime:

    ptr  nnc_pool_create(i32 threads)   threads includes the caller; null when it cannot be made
    void nnc_pool_destroy(ptr)          ends and joins the threads: before the code they run is unloaded
    ptr  nnc_pool_words(ptr)            the words by which its callers are interrupted; null where there are none
    void nnc_pool_forget(ptr)           frees the memory only: in a child after fork, where the threads do not exist

Internal to every module with parallel loops: `i32 nnc.fork(pool, word, body, context, turns)` runs `i32 body(context,
low, high)` over contiguous parts of 0..turns and returns the first code, in order of turns, that is not 0. Part t is
run by thread t or, where that has not begun it when the caller is done with its own, by the caller: who runs it first
sets its claim, a word in the line of thread t, from the generation before to this one. With a null pool, one thread,
one turn, a pool that another caller is using, or on a target other than Linux, everything runs on the caller's
thread. The parts depend on the number of threads; the results do not, because turns are independent.

Waiting is 1000 `sched_yield`, a few tenths of a millisecond, then a futex, from which a thread wakes late (measured:
convolutions at batch 1 take 0.7 of the time that they take with 50, and with both threads on one core as long). Linux
wakes a thread on the processor of its waker where it takes the others for busy, as it does those of a virtual machine
that are idle, and leaves it there for tens of milliseconds (measured: a product of 512 x 512 x 512 then takes 1.4 ms on
two threads, not 0.75): so whoever wakes others forbids them its processor until they are awake. The only symbols needed
are pthread_create, pthread_join and syscall.

**Interrupting.** A pool has three words, which whoever wants its callers to stop fills with the code to return: SOFT is
looked at between steps of the training loop, CLEAN while an entry has written no variable yet, HALF from then on. A
loop that may take long looks at one in each turn (`kernel.is_long`); so does a part between blocks of turns.

Layout of a pool, one cache line of 64 bytes each: generation, counted up by each fork; threads still working; threads
asleep or about to be; then the flags and the work (see the offsets below); the words; then one line per thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

# Linux system call numbers.
_NAMES = ("FUTEX", "YIELD", "MMAP", "MUNMAP", "GETTID", "GETCPU", "GETAFFINITY", "SETAFFINITY")
_GENERIC = dict(zip(_NAMES, (98, 124, 222, 215, 178, 168, 123, 122), strict=True))
CALLS = {
    "x86_64": dict(zip(_NAMES, (202, 24, 9, 11, 186, 309, 204, 203), strict=True)),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}

LINE = 64
WORDS = 5 * LINE
SOFT, CLEAN, HALF = 0, 4, 8  # behind WORDS
WORKERS = 6 * LINE  # thread t at WORKERS + t * LINE, with the pool's address and then these:
_WORKER = {"INDEX": 8, "THREAD": 16, "CODE": 24, "CLAIM": 28, "ID": 32}
_WORK = ("BUSY", "THREADS", "STOP", "BODY", "CONTEXT", "TURNS", "WORD", "ROUSE")

# What stands for `$NAME` in the templates `blocks.ll`, `fork.ll` and `pool.ll`.
NUMBERS = {
    "LINE": LINE, "PENDING": LINE, "SLEEPERS": 2 * LINE, "WAITING": 3 * LINE, "WORDS": WORDS, "WORKERS": WORKERS,
    **{name: 4 * LINE + 8 * k for k, name in enumerate(_WORK)},
    **{f"W_{name}": at for name, at in _WORKER.items()},  # from the worker's line
    **{f"WORKER_{name}": WORKERS + at for name, at in _WORKER.items()},  # of worker 0, from the pool
    "MAX_THREADS": 256,
    "SPINS": 1000,
    "MASK": 128,  # bytes of a set of processors; where Linux has larger ones threads wake where they may
    "CLEAN_WORD": WORDS + CLEAN,
    "BLOCK": 4096,  # turns between two looks at a word
}  # fmt: skip


def _filled(name: str, calls: Mapping[str, int] = {}) -> str:
    """A template with its numbers."""
    return Template(Path(__file__).with_name(f"{name}.ll").read_text("ascii")).substitute(NUMBERS, **calls)


def _calls(triple: str) -> dict[str, int] | None:
    """The system calls of a target; None where we have no threads."""
    return CALLS.get(triple.split("-")[0]) if "linux" in triple else None


_SERIAL_FORK = """define internal i32 @nnc.fork(ptr %pool, ptr %word, ptr %body, ptr %context, i64 %turns) #0 {
  %code = call i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 0, i64 %turns)
  ret i32 %code
}
"""

_SERIAL_THREADS = """define internal i64 @nnc.threads(ptr %pool) #0 {
  ret i64 1
}
"""

_NO_POOL = """define ptr @nnc_pool_create(i32 %wanted) #0 {
  ret ptr null
}

define void @nnc_pool_destroy(ptr %pool) #0 {
  ret void
}

define void @nnc_pool_forget(ptr %pool) #0 {
  ret void
}

define ptr @nnc_pool_words(ptr %pool) #0 {
  ret ptr null
}
"""


def declarations() -> str:
    """The symbols that the host provides."""
    return """declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
"""


NEVER = "@nnc.never = internal constant [3 x i32] zeroinitializer, align 4\n"  # the words where there is no pool


def words(pool: str) -> tuple[str, str, str]:
    """What finds the words of a pool that may be null: three instructions, each over the results `%alone` and `%own` of
    those before it."""
    return (
        f"icmp eq ptr {pool}, null",
        f"getelementptr i8, ptr {pool}, i64 {WORDS}",
        "select i1 %alone, ptr @nnc.never, ptr %own",
    )


def fork(triple: str) -> str:
    """`nnc.fork` and what it needs."""
    calls = _calls(triple)
    return _filled("blocks") + (_SERIAL_FORK if calls is None else _filled("fork", calls))


def microbatches(triple: str) -> str:
    """`nnc.micro` and what it needs beside `fork`."""
    threads = _SERIAL_THREADS if _calls(triple) is None else _filled("threads")
    return f"{_filled('next')}\n{threads}\n{_filled('microbatches')}"


def microbatches_alone() -> str:
    """`nnc.micro` for a thread alone; it needs nothing."""
    return f"{_filled('next')}\n{_filled('alone')}"


def pool(triple: str) -> str:
    """`nnc_pool_create`, `nnc_pool_destroy`, `nnc_pool_forget` and the threads' own function; needs `fork` and
    `environment`."""
    calls = _calls(triple)
    return _NO_POOL if calls is None else _filled("pool", calls)
