"""Integers of 128 bits in instructions of 64: LLVM would call a library where a processor has no such words."""

from __future__ import annotations

from .code import Code

_TEXT = """define internal i128 @nnc.wide(i64 %high, i64 %low) alwaysinline #0 {
  %high.wide = zext i64 %high to i128
  %low.wide = zext i64 %low to i128
  %high.at = shl i128 %high.wide, 64
  %both = or i128 %high.at, %low.wide
  ret i128 %both
}

; The product, in pieces of 32 bits.
define internal i128 @nnc.wide.mul(i64 %a, i64 %b) #0 {
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
  %whole = mul i64 %a, %b
  %product = call i128 @nnc.wide(i64 %high, i64 %whole)
  ret i128 %product
}

; By 0 to 127 places.
define internal i128 @nnc.wide.shl(i128 %x, i64 %n) #0 {
  %low = trunc i128 %x to i64
  %high.wide = lshr i128 %x, 64
  %high = trunc i128 %high.wide to i64
  %far = icmp uge i64 %n, 64
  %by = and i64 %n, 63
  %back = sub i64 63, %by
  %low.up = shl i64 %low, %by
  %low.half = lshr i64 %low, 1
  %carry = lshr i64 %low.half, %back
  %high.up = shl i64 %high, %by
  %high.near = or i64 %high.up, %carry
  %high.new = select i1 %far, i64 %low.up, i64 %high.near
  %low.new = select i1 %far, i64 0, i64 %low.up
  %shifted = call i128 @nnc.wide(i64 %high.new, i64 %low.new)
  ret i128 %shifted
}

define internal i128 @nnc.wide.lshr(i128 %x, i64 %n) #0 {
  %low = trunc i128 %x to i64
  %high.wide = lshr i128 %x, 64
  %high = trunc i128 %high.wide to i64
  %far = icmp uge i64 %n, 64
  %by = and i64 %n, 63
  %back = sub i64 63, %by
  %high.down = lshr i64 %high, %by
  %high.twice = shl i64 %high, 1
  %carry = shl i64 %high.twice, %back
  %low.down = lshr i64 %low, %by
  %low.near = or i64 %low.down, %carry
  %low.new = select i1 %far, i64 %high.down, i64 %low.near
  %high.new = select i1 %far, i64 0, i64 %high.down
  %shifted = call i128 @nnc.wide(i64 %high.new, i64 %low.new)
  ret i128 %shifted
}
"""


def define(i: Code) -> None:
    """`nnc.wide.mul`, `nnc.wide.shl` and `nnc.wide.lshr`, for functions that the module defines."""
    i.define(("nnc.wide", "", 0), _TEXT)
