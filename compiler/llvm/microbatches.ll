; How many of the examples that are left come next: as many as a micro-batch has, or all, or whole steps of them where
; at most half a step is beyond.
define internal i64 @nnc.micro.next(i64 %rest, i64 %length, i64 %step) #0 {
  %fewer = icmp slt i64 %rest, %length
  %taken = select i1 %fewer, i64 %rest, i64 %length
  %over = srem i64 %taken, %step
  %twice = shl i64 %over, 1
  %little = icmp sle i64 %twice, %step
  %several = icmp sgt i64 %taken, %step
  %cut = and i1 %little, %several
  %beyond = select i1 %cut, i64 %over, i64 0
  %next = sub i64 %taken, %beyond
  ret i64 %next
}

; What a thread does of whole micro-batches: as many as each does, in an arena of its own. The context: what runs one,
; its arguments, examples of a micro-batch, micro-batches of a thread, bytes of an arena.
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
  %each.at = getelementptr i64, ptr %context, i64 6
  %each = load i64, ptr %each.at, align 8
  %bytes.at = getelementptr i64, ptr %context, i64 7
  %bytes = load i64, ptr %bytes.at, align 8
  %first = mul i64 %low, %each
  %end = mul i64 %high, %each
  br label %check
check:
  %k = phi i64 [ %first, %entry ], [ %k.next, %run.one ]
  %code = phi i32 [ 0, %entry ], [ %code.one, %run.one ]
  %more = icmp slt i64 %k, %end
  %fine = icmp eq i32 %code, 0
  %on = and i1 %more, %fine
  br i1 %on, label %run.one, label %done
run.one:
  %thread = sdiv i64 %k, %each
  %offset = mul i64 %thread, %bytes
  %own = getelementptr i8, ptr %arena, i64 %offset
  %start = mul i64 %k, %length
  %code.one = call i32 %run(ptr %sizes, ptr %slots, ptr %own, ptr %pool, i64 %start, i64 %length)
  %k.next = add i64 %k, 1
  br label %check
done:
  ret i32 %code
}

; A batch in micro-batches: of the whole ones each thread does as many as the others, at the same time; threads share
; the work inside of what is left.
define internal i32 @nnc.micro(ptr %run, ptr %sizes, ptr %slots, ptr %arena, ptr %pool, i64 %count, i64 %length, i64 %step, i64 %bytes) noinline #0 {
entry:
  %context = alloca [8 x i64], align 8
  %bytes.more = add i64 %bytes, $LINE
  %bytes.less = sub i64 %bytes.more, 1
  %lines = udiv i64 %bytes.less, $LINE
  %bytes.whole = mul i64 %lines, $LINE
  %whole = sdiv i64 %count, %length
  %threads = call i64 @nnc.threads(ptr %pool)
  %each = sdiv i64 %whole, %threads
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
  %each.at = getelementptr i64, ptr %context, i64 6
  store i64 %each, ptr %each.at, align 8
  %bytes.at = getelementptr i64, ptr %context, i64 7
  store i64 %bytes.whole, ptr %bytes.at, align 8
  %several = icmp sgt i64 %each, 0
  %turns = select i1 %several, i64 %threads, i64 0
  %alone = icmp eq ptr %pool, null
  %pool.word = getelementptr i8, ptr %pool, i64 $CLEAN_WORD
  %word = select i1 %alone, ptr @nnc.never, ptr %pool.word
  %code.shared = call i32 @nnc.fork(ptr %pool, ptr %word, ptr @nnc.micro.share, ptr %context, i64 %turns)
  %shared = mul i64 %turns, %each
  %first = mul i64 %shared, %length
  br label %check
check:
  %at = phi i64 [ %first, %entry ], [ %at.next, %run.one ]
  %code = phi i32 [ %code.shared, %entry ], [ %code.one, %run.one ]
  %more = icmp slt i64 %at, %count
  %fine = icmp eq i32 %code, 0
  %on = and i1 %more, %fine
  br i1 %on, label %run.one, label %done
run.one:
  %rest = sub i64 %count, %at
  %taken = call i64 @nnc.micro.next(i64 %rest, i64 %length, i64 %step)
  %code.one = call i32 %run(ptr %sizes, ptr %slots, ptr %arena, ptr %pool, i64 %at, i64 %taken)
  %at.next = add i64 %at, %taken
  br label %check
done:
  ret i32 %code
}
