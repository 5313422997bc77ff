; A finite f64 that is not 0, as an integer of 53 bits and its exponent; 0 is (0, -4096).
define internal { i64, i64 } @nnc.fma.part(double %x) #0 {
  %bits = bitcast double %x to i64
  %field.at = lshr i64 %bits, 52
  %field = and i64 %field.at, 2047
  %fraction = and i64 %bits, 4503599627370495
  %zeros = call i64 @llvm.ctlz.i64(i64 %fraction, i1 false)
  %up = sub i64 %zeros, 11
  %up.some = and i64 %up, 63
  %shifted = shl i64 %fraction, %up.some
  %shifted.e = sub i64 -1074, %up
  %whole = or i64 %fraction, 4503599627370496
  %whole.e = sub i64 %field, 1075
  %normal = icmp ne i64 %field, 0
  %nothing = icmp eq i64 %fraction, 0
  %small = select i1 %nothing, i64 0, i64 %shifted
  %small.e = select i1 %nothing, i64 -4096, i64 %shifted.e
  %m = select i1 %normal, i64 %whole, i64 %small
  %e = select i1 %normal, i64 %whole.e, i64 %small.e
  %pair.m = insertvalue { i64, i64 } poison, i64 %m, 0
  %pair = insertvalue { i64, i64 } %pair.m, i64 %e, 1
  ret { i64, i64 } %pair
}

; x 2^-n, the last digit set where others after it were not 0.
define internal i128 @nnc.fma.shift(i128 %x, i64 %n) #0 {
  %far = icmp sgt i64 %n, 127
  %most = select i1 %far, i64 127, i64 %n
  %y = call i128 @nnc.wide.lshr(i128 %x, i64 %most)
  %back = call i128 @nnc.wide.shl(i128 %y, i64 %most)
  %lost = icmp ne i128 %back, %x
  %sticky = zext i1 %lost to i128
  %odd = or i128 %y, %sticky
  ret i128 %odd
}

; a b + c rounded once, to nearest and even. Product and summand are integers below 2^125 of one exponent.
define internal double @nnc.fma.one(double %a, double %b, double %c) noinline #0 {
entry:
  %plain.p = fmul double %a, %b
  %plain = fadd double %plain.p, %c
  %a.size = call double @llvm.fabs.f64(double %a)
  %b.size = call double @llvm.fabs.f64(double %b)
  %c.size = call double @llvm.fabs.f64(double %c)
  %a.some = fcmp one double %a, 0.0
  %b.some = fcmp one double %b, 0.0
  %a.finite = fcmp olt double %a.size, 0x7FF0000000000000
  %b.finite = fcmp olt double %b.size, 0x7FF0000000000000
  %c.finite = fcmp olt double %c.size, 0x7FF0000000000000
  %some = and i1 %a.some, %b.some
  %ab.finite = and i1 %a.finite, %b.finite
  %finite = and i1 %ab.finite, %c.finite
  %go = and i1 %some, %finite
  br i1 %go, label %parts, label %simple
simple:
  %c.only = xor i1 %c.finite, true
  %c.wins = and i1 %ab.finite, %c.only
  %result.simple = select i1 %c.wins, double %c, double %plain
  ret double %result.simple
parts:
  %a.part = call { i64, i64 } @nnc.fma.part(double %a)
  %b.part = call { i64, i64 } @nnc.fma.part(double %b)
  %c.part = call { i64, i64 } @nnc.fma.part(double %c)
  %a.m = extractvalue { i64, i64 } %a.part, 0
  %b.m = extractvalue { i64, i64 } %b.part, 0
  %c.m = extractvalue { i64, i64 } %c.part, 0
  %a.e = extractvalue { i64, i64 } %a.part, 1
  %b.e = extractvalue { i64, i64 } %b.part, 1
  %c.e = extractvalue { i64, i64 } %c.part, 1
  %a.bits = bitcast double %a to i64
  %b.bits = bitcast double %b to i64
  %c.bits = bitcast double %c to i64
  %p.bits = xor i64 %a.bits, %b.bits
  %p.minus = icmp slt i64 %p.bits, 0
  %c.minus = icmp slt i64 %c.bits, 0
  %product = call i128 @nnc.wide.mul(i64 %a.m, i64 %b.m)
  %p = shl i128 %product, 19
  %p.e.sum = add i64 %a.e, %b.e
  %p.e = sub i64 %p.e.sum, 19
  %c.wide = zext i64 %c.m to i128
  %s = shl i128 %c.wide, 71
  %s.e = sub i64 %c.e, 71
  %p.less = sub i64 %s.e, %p.e
  %s.less = sub i64 %p.e, %s.e
  %p.low = icmp sgt i64 %p.less, 0
  %p.by = select i1 %p.low, i64 %p.less, i64 0
  %s.by = select i1 %p.low, i64 0, i64 %s.less
  %e = select i1 %p.low, i64 %s.e, i64 %p.e
  %p.at = call i128 @nnc.fma.shift(i128 %p, i64 %p.by)
  %s.at = call i128 @nnc.fma.shift(i128 %s, i64 %s.by)
  %s.minus.at = sub i128 0, %s.at
  %differ = xor i1 %p.minus, %c.minus
  %signed = select i1 %differ, i128 %s.minus.at, i128 %s.at
  %sum = add i128 %p.at, %signed
  %nothing = icmp eq i128 %sum, 0
  br i1 %nothing, label %cancelled, label %round
cancelled:
  ret double 0.0
round:
  %turned = icmp slt i128 %sum, 0
  %sum.minus = sub i128 0, %sum
  %size = select i1 %turned, i128 %sum.minus, i128 %sum
  %minus = xor i1 %p.minus, %turned
  %zeros.wide = call i128 @llvm.ctlz.i128(i128 %size, i1 true)
  %zeros = trunc i128 %zeros.wide to i64
  %to.digits = sub i64 75, %zeros
  %to.least = sub i64 -1074, %e
  %subnormal = icmp sgt i64 %to.least, %to.digits
  %drop = select i1 %subnormal, i64 %to.least, i64 %to.digits
  %exact = icmp sle i64 %drop, 0
  %left = sub i64 0, %drop
  %left.some = select i1 %exact, i64 %left, i64 0
  %longer = call i128 @nnc.wide.shl(i128 %size, i64 %left.some)
  %right.some = select i1 %exact, i64 1, i64 %drop
  %far = icmp sgt i64 %right.some, 127
  %right = select i1 %far, i64 127, i64 %right.some
  %q = call i128 @nnc.wide.lshr(i128 %size, i64 %right)
  %back = call i128 @nnc.wide.shl(i128 %q, i64 %right)
  %rest = sub i128 %size, %back
  %half.at = sub i64 %right, 1
  %half = call i128 @nnc.wide.shl(i128 1, i64 %half.at)
  %above = icmp ugt i128 %rest, %half
  %tie = icmp eq i128 %rest, %half
  %q.odd = trunc i128 %q to i1
  %tie.up = and i1 %tie, %q.odd
  %up = or i1 %above, %tie.up
  %near = xor i1 %far, true
  %up.near = and i1 %up, %near
  %up.wide = zext i1 %up.near to i128
  %q.up = add i128 %q, %up.wide
  %digits.wide = select i1 %exact, i128 %longer, i128 %q.up
  %digits = trunc i128 %digits.wide to i64
  %unit = add i64 %e, %drop
  %field = add i64 %unit, 1074
  %field.at = shl i64 %field, 52
  %bits.some = add i64 %field.at, %digits
  %over = icmp sgt i64 %field, 2045
  %bits = select i1 %over, i64 9218868437227405312, i64 %bits.some
  %sign = select i1 %minus, i64 -9223372036854775808, i64 0
  %signed.bits = or i64 %bits, %sign
  %result = bitcast i64 %signed.bits to double
  ret double %result
}

declare i64 @llvm.ctlz.i64(i64, i1)
declare i128 @llvm.ctlz.i128(i128, i1)
declare double @llvm.fabs.f64(double)
