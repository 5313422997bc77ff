define internal i32 @nnc.blocks(ptr %word, ptr %body, ptr %context, i64 %low, i64 %high) noinline #0 {
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
  %full = add i64 %at, $BLOCK
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
}

