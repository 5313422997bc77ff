; Wait until the word is no longer %old. %sleepers counts who may be in the futex, so that nobody wakes in vain; %self is
; the line of this thread.
define internal void @nnc.await(ptr %word, i32 %old, ptr %sleepers, ptr %self) noinline #0 {
entry:
  br label %spin
spin:
  %spins = phi i32 [ 0, %entry ], [ %spins.next, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %old
  br i1 %changed, label %done, label %unchanged
unchanged:
  %tired = icmp uge i32 %spins, $SPINS
  br i1 %tired, label %sleep, label %again
again:
  %yielded = call i64 (i64, ...) @syscall(i64 $YIELD)
  %spins.next = add i32 %spins, 1
  br label %spin
sleep:
  %id = call i64 (i64, ...) @syscall(i64 $GETTID)
  %id.i32 = trunc i64 %id to i32
  %id.at = getelementptr i8, ptr %self, i64 $W_ID
  store i32 %id.i32, ptr %id.at, align 4
  %more = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %still = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %still, %old
  br i1 %same, label %wait, label %awake
wait:
  %slept = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i32 128, i32 %old, ptr null, ptr null, i32 0)
  br label %awake
awake:
  %less = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  %after = load atomic i32, ptr %word acquire, align 4
  %gone = icmp ne i32 %after, %old
  br i1 %gone, label %done, label %sleep
done:
  ret void
}

; Part %t of %n of the turns.
define internal i32 @nnc.part(ptr %word, ptr %body, ptr %context, i64 %turns, i64 %t, i64 %n) #0 {
  %low.product = mul i64 %turns, %t
  %low = udiv i64 %low.product, %n
  %t.next = add i64 %t, 1
  %high.product = mul i64 %turns, %t.next
  %high = udiv i64 %high.product, %n
  %code = call i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 %low, i64 %high)
  ret i32 %code
}

define internal i32 @nnc.fork(ptr %pool, ptr %word, ptr %body, ptr %context, i64 %turns) noinline #0 {
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
  %threads.at = getelementptr i8, ptr %pool, i64 $THREADS
  %threads = load i64, ptr %threads.at, align 8
  %few = icmp slt i64 %threads, 2
  br i1 %few, label %inline, label %claim
claim:
  %busy.at = getelementptr i8, ptr %pool, i64 $BUSY
  %claimed = cmpxchg ptr %busy.at, i32 0, i32 1 acquire monotonic
  %won = extractvalue { i32, i1 } %claimed, 1
  br i1 %won, label %start, label %inline
start:
  %body.at = getelementptr i8, ptr %pool, i64 $BODY
  %context.at = getelementptr i8, ptr %pool, i64 $CONTEXT
  %turns.at = getelementptr i8, ptr %pool, i64 $TURNS
  %pending.at = getelementptr i8, ptr %pool, i64 $PENDING
  %sleepers.at = getelementptr i8, ptr %pool, i64 $SLEEPERS
  %waiting.at = getelementptr i8, ptr %pool, i64 $WAITING
  store ptr %body, ptr %body.at, align 8
  store ptr %context, ptr %context.at, align 8
  store i64 %turns, ptr %turns.at, align 8
  %word.at = getelementptr i8, ptr %pool, i64 $WORD
  store ptr %word, ptr %word.at, align 8
  %others = sub i64 %threads, 1
  %others.i32 = trunc i64 %others to i32
  store atomic i32 %others.i32, ptr %pending.at monotonic, align 4
  %generation = atomicrmw add ptr %pool, i32 1 seq_cst
  %sleepers = load atomic i32, ptr %sleepers.at seq_cst, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %wake, label %own
wake:
  %rouse.at = getelementptr i8, ptr %pool, i64 $ROUSE
  %rouse = load ptr, ptr %rouse.at, align 8
  call void %rouse(ptr %pool, ptr %pool, i64 1, i64 %threads)
  br label %own
own:
  %code.own = call i32 @nnc.part(ptr %word, ptr %body, ptr %context, i64 %turns, i64 0, i64 %threads)
  %generation.new = add i32 %generation, 1
  br label %take
; what no worker has begun meanwhile, because it has no processor, is done here
take:
  %u = phi i64 [ 1, %own ], [ %u.next, %taken ]
  %u.line = mul i64 %u, $LINE
  %claim.offset = add i64 %u.line, $WORKER_CLAIM
  %claim.at = getelementptr i8, ptr %pool, i64 %claim.offset
  %tried = cmpxchg ptr %claim.at, i32 %generation, i32 %generation.new acquire monotonic
  %mine = extractvalue { i32, i1 } %tried, 1
  br i1 %mine, label %instead, label %taken
instead:
  %code.u = call i32 @nnc.part(ptr %word, ptr %body, ptr %context, i64 %turns, i64 %u, i64 %threads)
  %u.code.offset = add i64 %u.line, $WORKER_CODE
  %u.code.at = getelementptr i8, ptr %pool, i64 %u.code.offset
  store i32 %code.u, ptr %u.code.at, align 4
  %before = atomicrmw sub ptr %pending.at, i32 1 seq_cst
  br label %taken
taken:
  %u.next = add i64 %u, 1
  %u.more = icmp slt i64 %u.next, %threads
  br i1 %u.more, label %take, label %join
join:
  %pending = load atomic i32, ptr %pending.at acquire, align 4
  %joined = icmp eq i32 %pending, 0
  br i1 %joined, label %codes, label %unfinished
unfinished:
  %self = getelementptr i8, ptr %pool, i64 $WORKERS
  call void @nnc.await(ptr %pending.at, i32 %pending, ptr %waiting.at, ptr %self)
  br label %join
codes:
  %t = phi i64 [ 1, %join ], [ %t.next, %codes ]
  %code = phi i32 [ %code.own, %join ], [ %code.next, %codes ]
  %t.line = mul i64 %t, $LINE
  %t.offset = add i64 %t.line, $WORKER_CODE
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
}
