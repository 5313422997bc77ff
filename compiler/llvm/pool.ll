define internal void @nnc.wake(ptr %word) noinline #0 {
  %woken = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i32 129, i32 $MAX_THREADS, ptr null, ptr null, i32 0)
  ret void
}

; Wake the threads %low to %high, on other processors than this: while they are woken they are not allowed here.
define internal void @nnc.rouse(ptr %pool, ptr %word, i64 %low, i64 %high) noinline #0 {
entry:
  %here.at = alloca i32, align 4
  %masks = alloca [$MAX_THREADS x [$MASK x i8]], align 8
  %parts = alloca [$MAX_THREADS x i8], align 1
  store i32 -1, ptr %here.at, align 4
  %known = call i64 (i64, ...) @syscall(i64 $GETCPU, ptr %here.at, ptr null, ptr null)
  %here = load i32, ptr %here.at, align 4
  %byte.i32 = lshr i32 %here, 3
  %byte = zext i32 %byte.i32 to i64
  %bit.i32 = and i32 %here, 7
  %bit = trunc i32 %bit.i32 to i8
  %one = shl i8 1, %bit
  %others = xor i8 %one, -1
  %within = icmp ult i64 %byte, $MASK
  br i1 %within, label %keep, label %anywhere
anywhere:
  call void @nnc.wake(ptr %word)
  ret void
keep:
  %t = phi i64 [ %low, %entry ], [ %t.next, %keep ]
  %id = call i32 @nnc.id(ptr %pool, i64 %t)
  %mask = getelementptr [$MAX_THREADS x [$MASK x i8]], ptr %masks, i64 0, i64 %t
  store [$MASK x i8] zeroinitializer, ptr %mask, align 8
  %got = call i64 (i64, ...) @syscall(i64 $GETAFFINITY, i32 %id, i64 $MASK, ptr %mask)
  %part.at = getelementptr i8, ptr %mask, i64 %byte
  %part = load i8, ptr %part.at, align 1
  %saved = getelementptr i8, ptr %parts, i64 %t
  store i8 %part, ptr %saved, align 1
  %left = and i8 %part, %others
  store i8 %left, ptr %part.at, align 1
  %kept = call i64 (i64, ...) @syscall(i64 $SETAFFINITY, i32 %id, i64 $MASK, ptr %mask)
  %t.next = add i64 %t, 1
  %more = icmp slt i64 %t.next, %high
  br i1 %more, label %keep, label %wake
wake:
  call void @nnc.wake(ptr %word)
  br label %free
free:
  %u = phi i64 [ %low, %wake ], [ %u.next, %free ]
  %u.id = call i32 @nnc.id(ptr %pool, i64 %u)
  %u.mask = getelementptr [$MAX_THREADS x [$MASK x i8]], ptr %masks, i64 0, i64 %u
  %u.saved = getelementptr i8, ptr %parts, i64 %u
  %u.part = load i8, ptr %u.saved, align 1
  %u.part.at = getelementptr i8, ptr %u.mask, i64 %byte
  store i8 %u.part, ptr %u.part.at, align 1
  %freed = call i64 (i64, ...) @syscall(i64 $SETAFFINITY, i32 %u.id, i64 $MASK, ptr %u.mask)
  %u.next = add i64 %u, 1
  %u.more = icmp slt i64 %u.next, %high
  br i1 %u.more, label %free, label %done
done:
  ret void
}

; Linux' number of thread %t of the pool, -1 as long as it has never been asleep.
define internal i32 @nnc.id(ptr %pool, i64 %t) #0 {
  %t.line = mul i64 %t, $LINE
  %id.offset = add i64 %t.line, $WORKER_ID
  %id.at = getelementptr i8, ptr %pool, i64 %id.offset
  %id = load i32, ptr %id.at, align 4
  %never = icmp eq i32 %id, 0
  %known = select i1 %never, i32 -1, i32 %id
  ret i32 %known
}

define internal i64 @nnc.pool.bytes(i64 %threads) #0 {
  %lines = mul i64 %threads, $LINE
  %bytes = add i64 %lines, $WORKERS
  ret i64 %bytes
}

define internal ptr @nnc.worker(ptr %self) #0 {
entry:
  %control = call i64 @nnc.enter()
  %pool = load ptr, ptr %self, align 8
  %index.at = getelementptr i8, ptr %self, i64 $W_INDEX
  %index = load i64, ptr %index.at, align 8
  %code.at = getelementptr i8, ptr %self, i64 $W_CODE
  %claim.at = getelementptr i8, ptr %self, i64 $W_CLAIM
  %pending.at = getelementptr i8, ptr %pool, i64 $PENDING
  %sleepers.at = getelementptr i8, ptr %pool, i64 $SLEEPERS
  %waiting.at = getelementptr i8, ptr %pool, i64 $WAITING
  %threads.at = getelementptr i8, ptr %pool, i64 $THREADS
  %stop.at = getelementptr i8, ptr %pool, i64 $STOP
  %body.at = getelementptr i8, ptr %pool, i64 $BODY
  %context.at = getelementptr i8, ptr %pool, i64 $CONTEXT
  %turns.at = getelementptr i8, ptr %pool, i64 $TURNS
  %word.at = getelementptr i8, ptr %pool, i64 $WORD
  br label %next
next:
  %seen = phi i32 [ 0, %entry ], [ %now, %claim ], [ %now, %work ], [ %now, %last ]
  call void @nnc.await(ptr %pool, i32 %seen, ptr %sleepers.at, ptr %self)
  %now = load atomic i32, ptr %pool acquire, align 4
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %end, label %claim
; no fork ends before each of its parts has been claimed, so one that is to be had is of the work that is there now
claim:
  %before.now = sub i32 %now, 1
  %tried = cmpxchg ptr %claim.at, i32 %before.now, i32 %now acquire monotonic
  %mine = extractvalue { i32, i1 } %tried, 1
  br i1 %mine, label %work, label %next
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
  call void @nnc.rouse(ptr %pool, ptr %pending.at, i64 0, i64 1)
  br label %next
end:
  ret ptr null
}

define ptr @nnc_pool_create(i32 %wanted) #0 {
entry:
  %wanted.i64 = sext i32 %wanted to i64
  %low = icmp slt i64 %wanted.i64, 1
  %at.least = select i1 %low, i64 1, i64 %wanted.i64
  %high = icmp sgt i64 %at.least, $MAX_THREADS
  %threads = select i1 %high, i64 $MAX_THREADS, i64 %at.least
  %bytes = call i64 @nnc.pool.bytes(i64 %threads)
  %address = call i64 (i64, ...) @syscall(i64 $MMAP, ptr null, i64 %bytes, i32 3, i32 34, i32 -1, i64 0)
  %failed = icmp eq i64 %address, -1
  br i1 %failed, label %none, label %mapped
none:
  ret ptr null
mapped:
  %pool = inttoptr i64 %address to ptr
  %threads.at = getelementptr i8, ptr %pool, i64 $THREADS
  store i64 %threads, ptr %threads.at, align 8
  %rouse.at = getelementptr i8, ptr %pool, i64 $ROUSE
  store ptr @nnc.rouse, ptr %rouse.at, align 8
  br label %more
more:
  %t = phi i64 [ 1, %mapped ], [ %t.next, %made ]
  %another = icmp slt i64 %t, %threads
  br i1 %another, label %make, label %ready
make:
  %t.line = mul i64 %t, $LINE
  %t.offset = add i64 %t.line, $WORKERS
  %self = getelementptr i8, ptr %pool, i64 %t.offset
  %index.at = getelementptr i8, ptr %self, i64 $W_INDEX
  %thread.at = getelementptr i8, ptr %self, i64 $W_THREAD
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
}

define void @nnc_pool_destroy(ptr %pool) #0 {
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %end, label %stop
stop:
  %stop.at = getelementptr i8, ptr %pool, i64 $STOP
  %threads.at = getelementptr i8, ptr %pool, i64 $THREADS
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
  %t.line = mul i64 %t, $LINE
  %t.offset = add i64 %t.line, $WORKER_THREAD
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
}

define ptr @nnc_pool_words(ptr %pool) #0 {
  %words = getelementptr i8, ptr %pool, i64 $WORDS
  ret ptr %words
}

define void @nnc_pool_forget(ptr %pool) #0 {
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %end, label %free
free:
  %threads.at = getelementptr i8, ptr %pool, i64 $THREADS
  %threads = load i64, ptr %threads.at, align 8
  %bytes = call i64 @nnc.pool.bytes(i64 %threads)
  %freed = call i64 (i64, ...) @syscall(i64 $MUNMAP, ptr %pool, i64 %bytes)
  br label %end
end:
  ret void
}
