"""An entry that runs a batch a few examples at a time.

In: an entry with `microbatches`, and the function that runs its steps. Out: two functions around that: `some` runs some
of the examples, on sizes and slots of its own; `batch` has it do so for all (`microbatches.ll`), or runs the steps at
once where there are no more examples than go together.
"""

from __future__ import annotations

from ..loops.ir import Entry, size_expr
from .expressions import Evaluator
from .text import symbol
from .values import Index


def batch(entry: Entry, e: Evaluator, parameters: str, steps: str) -> None:
    """The body of the function for all examples. `e` is at its beginning and knows the sizes."""
    m, fn = entry.microbatches, e.fn
    assert m is not None
    count = e.scalar(e.names[m.size]).ref
    first = fn.value(f"call i64 @nnc.micro.next(i64 {count}, i64 {m.length}, i64 {m.step})", "first")
    together = fn.value(f"icmp eq i64 {first}, {count}", "together")
    e.names[m.size] = Index(constant=m.length)
    arena = e.scalar(e.evaluate(size_expr(entry.arena))).ref
    before = fn.block
    once = fn.start("once")
    once.end = f"ret i32 {fn.value(f'call i32 {steps}({parameters})', 'code')}"
    parts = fn.start("parts")
    what = f"ptr {_some(entry)}, {parameters}, i64 {count}, i64 {m.length}, i64 {m.step}, i64 {arena}"
    parts.end = f"ret i32 {fn.value(f'call i32 @nnc.micro({what})', 'code')}"
    before.end = f"br i1 {together}, label {symbol(once.label)}, label {symbol(parts.label)}"


def some(entry: Entry, e: Evaluator, parameters: str, steps: str) -> str:
    """The function `i32 some(sizes, slots, arena, pool, start, count)`, for `count` examples from `start` on."""
    m, fn = entry.microbatches, e.fn
    assert m is not None
    start, count = fn.name("start"), fn.name("count")
    sizes = fn.alloca(f"[{len(entry.sizes)} x i64]", "own.sizes")
    slots = fn.alloca(f"[{len(entry.slots)} x ptr]", "own.slots")
    for k, size in enumerate(entry.sizes):
        at = fn.pure(f"getelementptr i64, ptr {sizes}, i64 {k}", 0, "at")
        fn.line(f"store i64 {count if size == m.size else e.scalar(e.names[size]).ref}, ptr {at}, align 8")
    for k, slot in enumerate(entry.slots):
        at = fn.pure(f"getelementptr ptr, ptr %slots, i64 {k}", 0, "at")
        there = fn.value(f"load ptr, ptr {at}", slot.name)
        if stride := m.stride(slot):
            offset = fn.value(f"mul i64 {start}, {e.scalar(e.evaluate(size_expr(stride))).ref}", "offset")
            there = fn.value(f"getelementptr i8, ptr {there}, i64 {offset}", slot.name)
        own = fn.pure(f"getelementptr ptr, ptr {slots}, i64 {k}", 0, "at")
        fn.line(f"store ptr {there}, ptr {own}")
    code = fn.value(f"call i32 {steps}(ptr {sizes}, ptr {slots}, ptr %arena, ptr %pool)", "code")
    fn.block.end = f"ret i32 {code}"
    return fn.text(f"define internal i32 {_some(entry)}({parameters}, i64 {start}, i64 {count}) #0")


def _some(entry: Entry) -> str:
    return symbol(f"nnc.some.{entry.name}", "@")
