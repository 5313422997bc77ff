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
