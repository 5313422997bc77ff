define internal void @nnc.copy(ptr %to, ptr %from, i64 %bytes) noinline #0 {
entry:
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %source = getelementptr i8, ptr %from, i64 %k
  %target = getelementptr i8, ptr %to, i64 %k
  %byte = load i8, ptr %source, align 1
  store i8 %byte, ptr %target, align 1
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %bytes
  br i1 %more, label %next, label %done
done:
  ret void
}

; So many 64-bit words of 0.
define internal void @nnc.fill(ptr %at, i64 %words) noinline #0 {
entry:
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %word = getelementptr i64, ptr %at, i64 %k
  store i64 0, ptr %word, align 8
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %words
  br i1 %more, label %next, label %done
done:
  ret void
}

define internal void @nnc.ones.f32(ptr %at, i64 %count) noinline #0 {
entry:
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %word = getelementptr float, ptr %at, i64 %k
  store float 1.0, ptr %word, align 4
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %count
  br i1 %more, label %next, label %done
done:
  ret void
}

define internal void @nnc.ones.f64(ptr %at, i64 %count) noinline #0 {
entry:
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %word = getelementptr double, ptr %at, i64 %k
  store double 1.0, ptr %word, align 8
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %count
  br i1 %more, label %next, label %done
done:
  ret void
}
