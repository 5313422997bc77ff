; Whole micro-batches from %low to %high, in the arena of the thread whose part of all of them that is. The context: what
; runs one, its arguments, examples of a micro-batch, how many there are, threads, bytes of an arena, the word that
; interrupts.
define internal i32 @nnc.micro.share(ptr %context, i64 %low, i64 %high) #0 {
entry:
  %run = load ptr, ptr %context, align 8
  %sizes.at = getelementptr i64, ptr %context, i64 1
  %sizes = load ptr, ptr %sizes.at, align 8
  %slots.at = getelementptr i64, ptr %context, i64 2
  %slots = load ptr, ptr %slots.at, align 8
  %arena.at = getelementptr i64, ptr %context, i64 3
  %arena = load ptr, ptr %arena.at, align 8
  %pool.at = getelementptr i64, ptr %context, i64 4
  %pool = load ptr, ptr %pool.at, align 8
  %length.at = getelementptr i64, ptr %context, i64 5
  %length = load i64, ptr %length.at, align 8
  %turns.at = getelementptr i64, ptr %context, i64 6
  %turns = load i64, ptr %turns.at, align 8
  %threads.at = getelementptr i64, ptr %context, i64 7
  %threads = load i64, ptr %threads.at, align 8
  %bytes.at = getelementptr i64, ptr %context, i64 8
  %bytes = load i64, ptr %bytes.at, align 8
  %word.at = getelementptr i64, ptr %context, i64 9
  %word = load ptr, ptr %word.at, align 8
  ; thread t has those from turns t / threads on, rounded down
  %low.next = add i64 %low, 1
  %ends = mul i64 %low.next, %threads
  %last = sub i64 %ends, 1
  %thread = sdiv i64 %last, %turns
  %offset = mul i64 %thread, %bytes
  %own = getelementptr i8, ptr %arena, i64 %offset
  br label %check
check:
  %k = phi i64 [ %low, %entry ], [ %k.next, %run.one ]
  %code = phi i32 [ 0, %entry ], [ %code.one, %run.one ]
  %more = icmp slt i64 %k, %high
  %fine = icmp eq i32 %code, 0
  %on = and i1 %more, %fine
  br i1 %on, label %look, label %done
look:
  %now = load atomic i32, ptr %word monotonic, align 4
  %go = icmp eq i32 %now, 0
  br i1 %go, label %run.one, label %interrupted
interrupted:
  ret i32 %now
run.one:
  %start = mul i64 %k, %length
  %code.one = call i32 %run(ptr %sizes, ptr %slots, ptr %own, ptr %pool, i64 %start, i64 %length)
  %k.next = add i64 %k, 1
  br label %check
done:
  ret i32 %code
}

; A batch in micro-batches. Threads run whole ones at the same time, as many as they can share evenly, and those that
; are left, too, if more than half of the threads have one of them; else threads share the work inside of these.
define internal i32 @nnc.micro(ptr %run, ptr %sizes, ptr %slots, ptr %arena, ptr %pool, i64 %count, i64 %length, i64 %step, i64 %bytes) noinline #0 {
entry:
  %context = alloca [10 x i64], align 8
  %bytes.more = add i64 %bytes, $LINE
  %bytes.less = sub i64 %bytes.more, 1
  %lines = udiv i64 %bytes.less, $LINE
  %bytes.whole = mul i64 %lines, $LINE
  %threads = call i64 @nnc.threads(ptr %pool)
  %whole = sdiv i64 %count, %length
  %left = srem i64 %whole, %threads
  %even = sub i64 %whole, %left
  %left.twice = shl i64 %left, 1
  %many.left = icmp sgt i64 %left.twice, %threads
  %turns = select i1 %many.left, i64 %whole, i64 %even
  %alone = icmp eq ptr %pool, null
  %pool.word = getelementptr i8, ptr %pool, i64 $CLEAN_WORD
  %word = select i1 %alone, ptr @nnc.never, ptr %pool.word
  store ptr %run, ptr %context, align 8
  %sizes.at = getelementptr i64, ptr %context, i64 1
  store ptr %sizes, ptr %sizes.at, align 8
  %slots.at = getelementptr i64, ptr %context, i64 2
  store ptr %slots, ptr %slots.at, align 8
  %arena.at = getelementptr i64, ptr %context, i64 3
  store ptr %arena, ptr %arena.at, align 8
  %pool.at = getelementptr i64, ptr %context, i64 4
  store ptr %pool, ptr %pool.at, align 8
  %length.at = getelementptr i64, ptr %context, i64 5
  store i64 %length, ptr %length.at, align 8
  %turns.at = getelementptr i64, ptr %context, i64 6
  store i64 %turns, ptr %turns.at, align 8
  %threads.at = getelementptr i64, ptr %context, i64 7
  store i64 %threads, ptr %threads.at, align 8
  %bytes.at = getelementptr i64, ptr %context, i64 8
  store i64 %bytes.whole, ptr %bytes.at, align 8
  %word.at = getelementptr i64, ptr %context, i64 9
  store ptr %word, ptr %word.at, align 8
  %code.shared = call i32 @nnc.fork(ptr %pool, ptr %word, ptr @nnc.micro.share, ptr %context, i64 %turns)
  %first = mul i64 %turns, %length
  br label %check
check:
  %at = phi i64 [ %first, %entry ], [ %at.next, %run.one ]
  %code = phi i32 [ %code.shared, %entry ], [ %code.one, %run.one ]
  %more = icmp slt i64 %at, %count
  %fine = icmp eq i32 %code, 0
  %on = and i1 %more, %fine
  br i1 %on, label %look, label %done
look:
  %now = load atomic i32, ptr %word monotonic, align 4
  %go = icmp eq i32 %now, 0
  br i1 %go, label %run.one, label %interrupted
interrupted:
  ret i32 %now
run.one:
  %rest = sub i64 %count, %at
  %taken = call i64 @nnc.micro.next(i64 %rest, i64 %length, i64 %step)
  %code.one = call i32 %run(ptr %sizes, ptr %slots, ptr %arena, ptr %pool, i64 %at, i64 %taken)
  %at.next = add i64 %at, %taken
  br label %check
done:
  ret i32 %code
}
