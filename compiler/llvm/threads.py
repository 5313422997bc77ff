"""The thread pool, as LLVM IR: fork and join of a range of turns over a few threads.

Exported by `support`, for the runtime:

    ptr  nnc_pool_create(i32 threads)   threads includes the caller; null when it cannot be made
    void nnc_pool_destroy(ptr)          ends and joins the threads: before the code they run is unloaded
    ptr  nnc_pool_words(ptr)            the words by which its callers are interrupted; null where there are none
    void nnc_pool_forget(ptr)           frees the memory only: in a child after fork, where the threads do not exist

Internal to every module with parallel loops: `i32 nnc.fork(pool, word, body, context, turns)` runs `i32 body(context,
low, high)` over contiguous parts of 0..turns, part t on thread t, and returns the first code, in order of turns, that
is not 0. With a null pool, one thread, one turn, a pool that another caller is using, or on a target other than Linux,
everything runs on the caller's thread. The parts depend on the number of threads; the results do not, because turns are
independent.

Waiting is 50 `sched_yield`, then a futex (measured: 2.7 µs a fork-join even with both threads on one core; spinning
longer is worse there). The only symbols needed are pthread_create, pthread_join and syscall.

**Interrupting.** A pool has three words, which whoever wants its callers to stop fills with the code to return: SOFT is
looked at between steps of the training loop, CLEAN while an entry has written no variable yet, HALF from then on. A
loop that may take long looks at one in each turn (`kernel.is_long`); so does a part between blocks of turns.

Layout of a pool, one cache line of 64 bytes each: generation, counted up by each fork; threads still working; threads
asleep or about to be; then the flags and the work (see the offsets below); the words; then one line per thread.
"""

from __future__ import annotations

# Linux system call numbers: futex, sched_yield, mmap, munmap.
CALLS = {"x86_64": (202, 24, 9, 11), "aarch64": (98, 124, 222, 215), "riscv64": (98, 124, 222, 215)}

LINE = 64
GENERATION, PENDING, SLEEPERS, WAITING = 0, LINE, 2 * LINE, 3 * LINE
BUSY, THREADS, STOP, BODY, CONTEXT, TURNS, WORD = (4 * LINE + 8 * k for k in range(7))
WORDS = 5 * LINE
SOFT, CLEAN, HALF = 0, 4, 8  # behind WORDS
WORKERS = 6 * LINE  # thread t at WORKERS + t * LINE:
W_POOL, W_INDEX, W_THREAD, W_CODE = 0, 8, 16, 24
MAX_THREADS = 256
SPINS = 50
BLOCK = 4096  # turns between two looks at a word


def _numbers(triple: str) -> tuple[int, int, int, int] | None:
    """The system calls of a target; None where we have no threads."""
    return CALLS.get(triple.split("-")[0]) if "linux" in triple else None


# Turns low..high on this thread.
_BLOCKS = f"""define internal i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 %low, i64 %high) noinline #0 {{
entry:
  %some = icmp slt i64 %low, %high
  br i1 %some, label %next, label %done
next:
  %at = phi i64 [ %low, %entry ], [ %end, %on ]
  %now = load atomic i32, ptr %word monotonic, align 4
  %go = icmp eq i32 %now, 0
  br i1 %go, label %work, label %interrupted
interrupted:
  ret i32 %now
work:
  %full = add i64 %at, {BLOCK}
  %last = icmp sge i64 %full, %high
  %end = select i1 %last, i64 %high, i64 %full
  %code = call i32 %body(ptr %context, i64 %at, i64 %end)
  %fine = icmp eq i32 %code, 0
  br i1 %fine, label %on, label %failed
failed:
  ret i32 %code
on:
  br i1 %last, label %done, label %next
done:
  ret i32 0
}}

"""

_SERIAL_FORK = """define internal i32 @nnc.fork(ptr %pool, ptr %word, ptr %body, ptr %context, i64 %turns) #0 {
  %code = call i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 0, i64 %turns)
  ret i32 %code
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
    return (f"icmp eq ptr {pool}, null", f"getelementptr i8, ptr {pool}, i64 {WORDS}",
            "select i1 %alone, ptr @nnc.never, ptr %own")


def fork(triple: str) -> str:
    """`nnc.fork` and what it needs."""
    numbers = _numbers(triple)
    if numbers is None:
        return _BLOCKS + _SERIAL_FORK
    futex, yield_, *_ = numbers
    return _BLOCKS + f"""define internal void @nnc.wake(ptr %word) noinline #0 {{
  %woken = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 {MAX_THREADS}, ptr null, ptr null, i32 0)
  ret void
}}

; Wait until the word is no longer %old. %sleepers counts who may be in the futex, so that nobody wakes in vain.
define internal void @nnc.await(ptr %word, i32 %old, ptr %sleepers) noinline #0 {{
entry:
  br label %spin
spin:
  %spins = phi i32 [ 0, %entry ], [ %spins.next, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %old
  br i1 %changed, label %done, label %unchanged
unchanged:
  %tired = icmp uge i32 %spins, {SPINS}
  br i1 %tired, label %sleep, label %again
again:
  %yielded = call i64 (i64, ...) @syscall(i64 {yield_})
  %spins.next = add i32 %spins, 1
  br label %spin
sleep:
  %more = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %still = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %still, %old
  br i1 %same, label %wait, label %awake
wait:
  %slept = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %old, ptr null, ptr null, i32 0)
  br label %awake
awake:
  %less = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  %after = load atomic i32, ptr %word acquire, align 4
  %gone = icmp ne i32 %after, %old
  br i1 %gone, label %done, label %sleep
done:
  ret void
}}

; Part %t of %n of the turns.
define internal i32 @nnc.part(ptr %word, ptr %body, ptr %context, i64 %turns, i64 %t, i64 %n) #0 {{
  %low.product = mul i64 %turns, %t
  %low = udiv i64 %low.product, %n
  %t.next = add i64 %t, 1
  %high.product = mul i64 %turns, %t.next
  %high = udiv i64 %high.product, %n
  %code = call i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 %low, i64 %high)
  ret i32 %code
}}

define internal i32 @nnc.fork(ptr %pool, ptr %word, ptr %body, ptr %context, i64 %turns) noinline #0 {{
entry:
  %empty = icmp slt i64 %turns, 1
  br i1 %empty, label %nothing, label %some
nothing:
  ret i32 0
some:
  %alone = icmp eq ptr %pool, null
  %single = icmp eq i64 %turns, 1
  %simple = or i1 %alone, %single
  br i1 %simple, label %inline, label %pooled
inline:
  %code.inline = call i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 0, i64 %turns)
  ret i32 %code.inline
pooled:
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  %threads = load i64, ptr %threads.at, align 8
  %few = icmp slt i64 %threads, 2
  br i1 %few, label %inline, label %claim
claim:
  %busy.at = getelementptr i8, ptr %pool, i64 {BUSY}
  %claimed = cmpxchg ptr %busy.at, i32 0, i32 1 acquire monotonic
  %won = extractvalue {{ i32, i1 }} %claimed, 1
  br i1 %won, label %start, label %inline
start:
  %body.at = getelementptr i8, ptr %pool, i64 {BODY}
  %context.at = getelementptr i8, ptr %pool, i64 {CONTEXT}
  %turns.at = getelementptr i8, ptr %pool, i64 {TURNS}
  %pending.at = getelementptr i8, ptr %pool, i64 {PENDING}
  %sleepers.at = getelementptr i8, ptr %pool, i64 {SLEEPERS}
  %waiting.at = getelementptr i8, ptr %pool, i64 {WAITING}
  store ptr %body, ptr %body.at, align 8
  store ptr %context, ptr %context.at, align 8
  store i64 %turns, ptr %turns.at, align 8
  %word.at = getelementptr i8, ptr %pool, i64 {WORD}
  store ptr %word, ptr %word.at, align 8
  %others = sub i64 %threads, 1
  %others.i32 = trunc i64 %others to i32
  store atomic i32 %others.i32, ptr %pending.at monotonic, align 4
  %generation = atomicrmw add ptr %pool, i32 1 seq_cst
  %sleepers = load atomic i32, ptr %sleepers.at seq_cst, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %wake, label %own
wake:
  call void @nnc.wake(ptr %pool)
  br label %own
own:
  %code.own = call i32 @nnc.part(ptr %word, ptr %body, ptr %context, i64 %turns, i64 0, i64 %threads)
  br label %join
join:
  %pending = load atomic i32, ptr %pending.at acquire, align 4
  %joined = icmp eq i32 %pending, 0
  br i1 %joined, label %codes, label %unfinished
unfinished:
  call void @nnc.await(ptr %pending.at, i32 %pending, ptr %waiting.at)
  br label %join
codes:
  %t = phi i64 [ 1, %join ], [ %t.next, %codes ]
  %code = phi i32 [ %code.own, %join ], [ %code.next, %codes ]
  %t.line = mul i64 %t, {LINE}
  %t.offset = add i64 %t.line, {WORKERS + W_CODE}
  %code.at = getelementptr i8, ptr %pool, i64 %t.offset
  %code.t = load i32, ptr %code.at, align 4
  %fine = icmp eq i32 %code, 0
  %code.next = select i1 %fine, i32 %code.t, i32 %code
  %t.next = add i64 %t, 1
  %more = icmp slt i64 %t.next, %threads
  br i1 %more, label %codes, label %done
done:
  store atomic i32 0, ptr %busy.at release, align 4
  ret i32 %code.next
}}
"""


def pool(triple: str) -> str:
    """`nnc_pool_create`, `nnc_pool_destroy`, `nnc_pool_forget` and the threads' own function; needs `fork` and
    `environment`."""
    numbers = _numbers(triple)
    if numbers is None:
        return _NO_POOL
    _, _, mmap, munmap = numbers
    return f"""define internal i64 @nnc.pool.bytes(i64 %threads) #0 {{
  %lines = mul i64 %threads, {LINE}
  %bytes = add i64 %lines, {WORKERS}
  ret i64 %bytes
}}

define internal ptr @nnc.worker(ptr %self) #0 {{
entry:
  %control = call i64 @nnc.enter()
  %pool = load ptr, ptr %self, align 8
  %index.at = getelementptr i8, ptr %self, i64 {W_INDEX}
  %index = load i64, ptr %index.at, align 8
  %code.at = getelementptr i8, ptr %self, i64 {W_CODE}
  %pending.at = getelementptr i8, ptr %pool, i64 {PENDING}
  %sleepers.at = getelementptr i8, ptr %pool, i64 {SLEEPERS}
  %waiting.at = getelementptr i8, ptr %pool, i64 {WAITING}
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  %stop.at = getelementptr i8, ptr %pool, i64 {STOP}
  %body.at = getelementptr i8, ptr %pool, i64 {BODY}
  %context.at = getelementptr i8, ptr %pool, i64 {CONTEXT}
  %turns.at = getelementptr i8, ptr %pool, i64 {TURNS}
  %word.at = getelementptr i8, ptr %pool, i64 {WORD}
  br label %next
next:
  %seen = phi i32 [ 0, %entry ], [ %seen.next, %work ], [ %seen.next, %last ]
  call void @nnc.await(ptr %pool, i32 %seen, ptr %sleepers.at)
  %seen.next = add i32 %seen, 1
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %end, label %work
work:
  %threads = load i64, ptr %threads.at, align 8
  %body = load ptr, ptr %body.at, align 8
  %context = load ptr, ptr %context.at, align 8
  %turns = load i64, ptr %turns.at, align 8
  %word = load ptr, ptr %word.at, align 8
  %code = call i32 @nnc.part(ptr %word, ptr %body, ptr %context, i64 %turns, i64 %index, i64 %threads)
  store i32 %code, ptr %code.at, align 4
  %before = atomicrmw sub ptr %pending.at, i32 1 seq_cst
  %waiting = load atomic i32, ptr %waiting.at seq_cst, align 4
  %is.waited.for = icmp ne i32 %waiting, 0
  br i1 %is.waited.for, label %last, label %next
last:
  call void @nnc.wake(ptr %pending.at)
  br label %next
end:
  ret ptr null
}}

define ptr @nnc_pool_create(i32 %wanted) #0 {{
entry:
  %wanted.i64 = sext i32 %wanted to i64
  %low = icmp slt i64 %wanted.i64, 1
  %at.least = select i1 %low, i64 1, i64 %wanted.i64
  %high = icmp sgt i64 %at.least, {MAX_THREADS}
  %threads = select i1 %high, i64 {MAX_THREADS}, i64 %at.least
  %bytes = call i64 @nnc.pool.bytes(i64 %threads)
  %address = call i64 (i64, ...) @syscall(i64 {mmap}, ptr null, i64 %bytes, i32 3, i32 34, i32 -1, i64 0)
  %failed = icmp eq i64 %address, -1
  br i1 %failed, label %none, label %mapped
none:
  ret ptr null
mapped:
  %pool = inttoptr i64 %address to ptr
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  store i64 %threads, ptr %threads.at, align 8
  br label %more
more:
  %t = phi i64 [ 1, %mapped ], [ %t.next, %made ]
  %another = icmp slt i64 %t, %threads
  br i1 %another, label %make, label %ready
make:
  %t.line = mul i64 %t, {LINE}
  %t.offset = add i64 %t.line, {WORKERS}
  %self = getelementptr i8, ptr %pool, i64 %t.offset
  %index.at = getelementptr i8, ptr %self, i64 {W_INDEX}
  %thread.at = getelementptr i8, ptr %self, i64 {W_THREAD}
  store ptr %pool, ptr %self, align 8
  store i64 %t, ptr %index.at, align 8
  %error = call i32 @pthread_create(ptr %thread.at, ptr null, ptr @nnc.worker, ptr %self)
  %ok = icmp eq i32 %error, 0
  br i1 %ok, label %made, label %fewer
made:
  %t.next = add i64 %t, 1
  br label %more
fewer:
  store i64 %t, ptr %threads.at, align 8
  br label %ready
ready:
  ret ptr %pool
}}

define void @nnc_pool_destroy(ptr %pool) #0 {{
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %end, label %stop
stop:
  %stop.at = getelementptr i8, ptr %pool, i64 {STOP}
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  store atomic i32 1, ptr %stop.at release, align 4
  %generation = atomicrmw add ptr %pool, i32 1 seq_cst
  call void @nnc.wake(ptr %pool)
  %threads = load i64, ptr %threads.at, align 8
  br label %more
more:
  %t = phi i64 [ 1, %stop ], [ %t.next, %join ]
  %another = icmp slt i64 %t, %threads
  br i1 %another, label %join, label %free
join:
  %t.line = mul i64 %t, {LINE}
  %t.offset = add i64 %t.line, {WORKERS + W_THREAD}
  %thread.at = getelementptr i8, ptr %pool, i64 %t.offset
  %thread = load i64, ptr %thread.at, align 8
  %joined = call i32 @pthread_join(i64 %thread, ptr null)
  %t.next = add i64 %t, 1
  br label %more
free:
  call void @nnc_pool_forget(ptr %pool)
  br label %end
end:
  ret void
}}

define ptr @nnc_pool_words(ptr %pool) #0 {{
  %words = getelementptr i8, ptr %pool, i64 {WORDS}
  ret ptr %words
}}

define void @nnc_pool_forget(ptr %pool) #0 {{
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %end, label %free
free:
  %threads.at = getelementptr i8, ptr %pool, i64 {THREADS}
  %threads = load i64, ptr %threads.at, align 8
  %bytes = call i64 @nnc.pool.bytes(i64 %threads)
  %freed = call i64 (i64, ...) @syscall(i64 {munmap}, ptr %pool, i64 %bytes)
  br label %end
end:
  ret void
}}
"""
