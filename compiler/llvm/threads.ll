; How many threads share the work of a pool, which may be null.
define internal i64 @nnc.threads(ptr %pool) #0 {
entry:
  %alone = icmp eq ptr %pool, null
  br i1 %alone, label %one, label %some
one:
  ret i64 1
some:
  %threads.at = getelementptr i8, ptr %pool, i64 $THREADS
  %threads = load i64, ptr %threads.at, align 8
  ret i64 %threads
}
