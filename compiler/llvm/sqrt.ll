; The square root rounded to nearest and even: two digits of the radicand make one of the root; what is left of it tells
; where beyond the last one it lies.
define internal $FLOAT $NAME($FLOAT %x) noinline #0 {
entry:
  %bits = bitcast $FLOAT %x to $INTEGER
  %wide = $WIDEN
  %positive = fcmp ogt $FLOAT %x, 0.0
  %finite = fcmp one $FLOAT %x, 0x7FF0000000000000
  %go = and i1 %positive, %finite
  br i1 %go, label %split, label %special
special:
  ; 0, infinity and NaN are their own roots; of what is negative there is none
  %negative = fcmp olt $FLOAT %x, 0.0
  %result.special = select i1 %negative, $FLOAT 0x7FF8000000000000, $FLOAT %x
  ret $FLOAT %result.special
split:
  %field = lshr i64 %wide, $DIGITS
  %fraction = and i64 %wide, $FRACTION
  %normal = icmp ne i64 %field, 0
  %with.one = or i64 %fraction, $WHOLE
  %zeros = call i64 @llvm.ctlz.i64(i64 %fraction, i1 false)
  %up = sub i64 %zeros, $UP
  %up.some = select i1 %normal, i64 0, i64 %up
  %lifted = shl i64 %fraction, %up.some
  %m = select i1 %normal, i64 %with.one, i64 %lifted
  %e.small = sub i64 1, %up.some
  %e.biased = select i1 %normal, i64 %field, i64 %e.small
  %e = sub i64 %e.biased, $BIAS
  %odd = and i64 %e, 1
  %even = sub i64 %e, %odd
  %half = ashr i64 %even, 1
  ; the radicand: DIGITS + 2 bits before the zeros that follow
  %radicand = shl i64 %m, %odd
  %first = add i64 $DIGITS, 2
  br label %digit
digit:
  %k = phi i64 [ 0, %split ], [ %k.next, %digit ]
  %root = phi i64 [ 0, %split ], [ %root.next, %digit ]
  %rest = phi i64 [ 0, %split ], [ %rest.next, %digit ]
  %left = phi i64 [ %first, %split ], [ %left.next, %digit ]
  %left.next = sub i64 %left, 2
  ; two more digits, zeros behind the last
  %behind = icmp slt i64 %left.next, 0
  %at = select i1 %behind, i64 0, i64 %left.next
  %seen = lshr i64 %radicand, %at
  %short = icmp eq i64 %left.next, -1
  %doubled = shl i64 %radicand, 1
  %last = select i1 %short, i64 %doubled, i64 0
  %two.all = select i1 %behind, i64 %last, i64 %seen
  %two = and i64 %two.all, 3
  %rest.up = shl i64 %rest, 2
  %rest.two = or i64 %rest.up, %two
  %root.up = shl i64 %root, 2
  %tried = or i64 %root.up, 1
  %fits = icmp uge i64 %rest.two, %tried
  %less = sub i64 %rest.two, %tried
  %rest.next = select i1 %fits, i64 %less, i64 %rest.two
  %root.doubled = shl i64 %root, 1
  %one = zext i1 %fits to i64
  %root.next = or i64 %root.doubled, %one
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, $STEPS
  br i1 %more, label %digit, label %round
round:
  ; DIGITS + 2 digits: the last one says whether more than half is beyond, and none is half exactly
  %up.one = and i64 %root.next, 1
  %cut = lshr i64 %root.next, 1
  %rounded = add i64 %cut, %up.one
  %whole = sub i64 %rounded, $WHOLE
  %biased = add i64 %half, $BIAS
  %placed = shl i64 %biased, $DIGITS
  %made = add i64 %placed, %whole
  %narrow = $NARROW
  %result = bitcast $INTEGER %narrow to $FLOAT
  ret $FLOAT %result
}

declare i64 @llvm.ctlz.i64(i64, i1)
