; A batch in micro-batches, one after the other: what `microbatches.ll` does on one thread that nobody interrupts.
define internal i32 @nnc.micro(ptr %run, ptr %sizes, ptr %slots, ptr %arena, ptr %pool, i64 %count, i64 %length, i64 %step, i64 %bytes) noinline #0 {
entry:
  br label %check
check:
  %at = phi i64 [ 0, %entry ], [ %at.next, %run.one ]
  %code = phi i32 [ 0, %entry ], [ %code.one, %run.one ]
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
