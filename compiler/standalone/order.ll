; The upper half of a product of 64 by 64 bits, in pieces of 32.
define internal i64 @nnc.high(i64 %a, i64 %b) #0 {
  %a0 = and i64 %a, 4294967295
  %a1 = lshr i64 %a, 32
  %b0 = and i64 %b, 4294967295
  %b1 = lshr i64 %b, 32
  %low = mul i64 %a0, %b0
  %low.carry = lshr i64 %low, 32
  %ab = mul i64 %a1, %b0
  %middle = add i64 %ab, %low.carry
  %middle.low = and i64 %middle, 4294967295
  %middle.high = lshr i64 %middle, 32
  %ba = mul i64 %a0, %b1
  %second = add i64 %ba, %middle.low
  %second.high = lshr i64 %second, 32
  %top = mul i64 %a1, %b1
  %top.middle = add i64 %top, %middle.high
  %high = add i64 %top.middle, %second.high
  ret i64 %high
}

; Four numbers of Philox 4x64-10 (Salmon et al. 2011), keyed by seed and stream 0, at a counter of an epoch.
define internal void @nnc.philox(ptr %to, i64 %seed, i64 %block, i64 %epoch) noinline #0 {
entry:
  br label %round
round:
  %k = phi i32 [ 0, %entry ], [ %k.next, %round ]
  %c0 = phi i64 [ %block, %entry ], [ %n0, %round ]
  %c1 = phi i64 [ 0, %entry ], [ %low1, %round ]
  %c2 = phi i64 [ %epoch, %entry ], [ %n2, %round ]
  %c3 = phi i64 [ 0, %entry ], [ %low0, %round ]
  %key0 = phi i64 [ %seed, %entry ], [ %key0.next, %round ]
  %key1 = phi i64 [ 0, %entry ], [ %key1.next, %round ]
  %high0 = call i64 @nnc.high(i64 %c0, i64 -3249550476889527149)
  %low0 = mul i64 %c0, -3249550476889527149
  %high1 = call i64 @nnc.high(i64 %c2, i64 -3865633965929787049)
  %low1 = mul i64 %c2, -3865633965929787049
  %x0 = xor i64 %high1, %c1
  %n0 = xor i64 %x0, %key0
  %x2 = xor i64 %high0, %c3
  %n2 = xor i64 %x2, %key1
  %key0.next = add i64 %key0, -7046029254386353131
  %key1.next = add i64 %key1, -4942790177534073029
  %k.next = add i32 %k, 1
  %more = icmp ult i32 %k.next, 10
  br i1 %more, label %round, label %done
done:
  store i64 %n0, ptr %to, align 8
  %at1 = getelementptr i64, ptr %to, i64 1
  store i64 %low1, ptr %at1, align 8
  %at2 = getelementptr i64, ptr %to, i64 2
  store i64 %n2, ptr %at2, align 8
  %at3 = getelementptr i64, ptr %to, i64 3
  store i64 %low0, ptr %at3, align 8
  ret void
}

; Whether example a comes before b: by the lower 48 bits of their keys, equal ones as they stand.
define internal i1 @nnc.before(ptr %keys, i32 %a, i32 %b) #0 {
  %a.index = zext i32 %a to i64
  %b.index = zext i32 %b to i64
  %a.at = getelementptr i64, ptr %keys, i64 %a.index
  %b.at = getelementptr i64, ptr %keys, i64 %b.index
  %a.word = load i64, ptr %a.at, align 8
  %b.word = load i64, ptr %b.at, align 8
  %a.key = and i64 %a.word, 281474976710655
  %b.key = and i64 %b.word, 281474976710655
  %less = icmp ult i64 %a.key, %b.key
  %equal = icmp eq i64 %a.key, %b.key
  %earlier = icmp ult i32 %a, %b
  %tie = and i1 %equal, %earlier
  %before = or i1 %less, %tie
  ret i1 %before
}

; Let what stands at %start sink in a heap of %n.
define internal void @nnc.sink(ptr %order, ptr %keys, i64 %start, i64 %n) noinline #0 {
entry:
  %moved.at = getelementptr i32, ptr %order, i64 %start
  %moved = load i32, ptr %moved.at, align 4
  br label %next
next:
  %k = phi i64 [ %start, %entry ], [ %child, %up ]
  %twice = shl i64 %k, 1
  %left = add i64 %twice, 1
  %right = add i64 %twice, 2
  %some = icmp slt i64 %left, %n
  br i1 %some, label %choose, label %rest
choose:
  %left.at = getelementptr i32, ptr %order, i64 %left
  %left.value = load i32, ptr %left.at, align 4
  %two = icmp slt i64 %right, %n
  br i1 %two, label %compare, label %chosen
compare:
  %right.at = getelementptr i32, ptr %order, i64 %right
  %right.value = load i32, ptr %right.at, align 4
  %larger = call i1 @nnc.before(ptr %keys, i32 %left.value, i32 %right.value)
  %which = select i1 %larger, i64 %right, i64 %left
  %which.value = select i1 %larger, i32 %right.value, i32 %left.value
  br label %chosen
chosen:
  %child = phi i64 [ %left, %choose ], [ %which, %compare ]
  %child.value = phi i32 [ %left.value, %choose ], [ %which.value, %compare ]
  %on = call i1 @nnc.before(ptr %keys, i32 %moved, i32 %child.value)
  br i1 %on, label %up, label %rest
up:
  %here.at = getelementptr i32, ptr %order, i64 %k
  store i32 %child.value, ptr %here.at, align 4
  br label %next
rest:
  %end.at = getelementptr i32, ptr %order, i64 %k
  store i32 %moved, ptr %end.at, align 4
  ret void
}

; The order of %n examples in an epoch: they stand as their keys do, which are drawn anew for each epoch.
define internal void @nnc.order(ptr %order, ptr %keys, i64 %n, i64 %seed, i64 %epoch) noinline #0 {
entry:
  %last = alloca [4 x i64], align 8
  br label %draw
draw:
  %block = phi i64 [ 0, %entry ], [ %block.next, %drawn ]
  %at = shl i64 %block, 2
  %more = icmp slt i64 %at, %n
  br i1 %more, label %drawing, label %number
drawing:
  %block.next = add i64 %block, 1
  %end = add i64 %at, 4
  %whole = icmp sle i64 %end, %n
  %keys.at = getelementptr i64, ptr %keys, i64 %at
  %to = select i1 %whole, ptr %keys.at, ptr %last
  call void @nnc.philox(ptr %to, i64 %seed, i64 %block.next, i64 %epoch)
  br i1 %whole, label %drawn, label %copy
copy:
  %j = phi i64 [ 0, %drawing ], [ %j.next, %copy ]
  %j.from = getelementptr i64, ptr %last, i64 %j
  %j.to = getelementptr i64, ptr %keys.at, i64 %j
  %j.word = load i64, ptr %j.from, align 8
  store i64 %j.word, ptr %j.to, align 8
  %j.next = add i64 %j, 1
  %j.at = add i64 %at, %j.next
  %j.more = icmp slt i64 %j.at, %n
  br i1 %j.more, label %copy, label %drawn
drawn:
  br label %draw
number:
  %i = phi i64 [ 0, %draw ], [ %i.next, %numbering ]
  %i.more = icmp slt i64 %i, %n
  br i1 %i.more, label %numbering, label %heap
numbering:
  %i.at = getelementptr i32, ptr %order, i64 %i
  %i.narrow = trunc i64 %i to i32
  store i32 %i.narrow, ptr %i.at, align 4
  %i.next = add i64 %i, 1
  br label %number
heap:
  %half = sdiv i64 %n, 2
  br label %build
build:
  %h = phi i64 [ %half, %heap ], [ %h.next, %building ]
  %h.more = icmp sgt i64 %h, 0
  br i1 %h.more, label %building, label %sort
building:
  %h.next = sub i64 %h, 1
  call void @nnc.sink(ptr %order, ptr %keys, i64 %h.next, i64 %n)
  br label %build
sort:
  %left = phi i64 [ %n, %build ], [ %left.next, %sorting ]
  %s.more = icmp sgt i64 %left, 1
  br i1 %s.more, label %sorting, label %done
sorting:
  %left.next = sub i64 %left, 1
  %s.at = getelementptr i32, ptr %order, i64 %left.next
  %first = load i32, ptr %order, align 4
  %swapped = load i32, ptr %s.at, align 4
  store i32 %swapped, ptr %order, align 4
  store i32 %first, ptr %s.at, align 4
  call void @nnc.sink(ptr %order, ptr %keys, i64 0, i64 %left.next)
  br label %sort
done:
  ret void
}
