"""The training loop as native code: `i32 nnc_epoch(step, job)`.

In: the address of an entry, and a job (`loading.EpochJob` explains its fields). Out: 0, or the code of the check that
failed or of an interruption (`threads`). It runs `step` over the examples from `position` up to `stop`, a batch at a
time, the last one ragged: gathers the rows that `order` names into the inputs' buffers (without an order the step reads
the rows where they are), runs the step, adds its scalar results to `totals`. It returns early after a step that gave a
result that is not finite. So Python is called a few times a second, not once a step.
"""

from __future__ import annotations

from . import threads
from .environment import guarded

FIELDS = (
    "sizes", "batch_index", "slots", "arena", "pool", "position", "stop", "examples", "batch", "order", "ninputs",
    "inputs", "nsums", "sums", "totals", "steps", "nonfinite",
)  # fmt: skip
INPUT_FIELDS = ("rows", "row_bytes", "slot", "buffer")
SUM_FIELDS = ("slot", "dtype", "kind")
POINTERS = frozenset({"sizes", "slots", "arena", "pool", "order", "inputs", "sums", "totals", "rows", "buffer"})


def epoch() -> str:
    """`nnc_epoch` and the row copy it uses."""
    outer, signature = guarded("nnc_epoch", "ptr %step, ptr %job")
    return f"{threads.NEVER}{_COPY}{signature} {{{_EPOCH}{outer}"


# Rows of one size, from where `order` points. Blocks of 64, 8, 4 or 1 bytes; the last block of a row overlaps the one
# before it, so that no row has a remainder.
_COPY = """define internal void @nnc.rows(ptr %to, ptr %from, i64 %bytes, ptr %order, i64 %n) noinline #0 {
entry:
  %some = icmp sgt i64 %n, 0
  %wide = icmp uge i64 %bytes, 64
  %middle = icmp uge i64 %bytes, 8
  %narrow = icmp uge i64 %bytes, 4
  %b4 = select i1 %narrow, i64 4, i64 1
  %b8 = select i1 %middle, i64 8, i64 %b4
  %block = select i1 %wide, i64 64, i64 %b8
  %end = sub i64 %bytes, %block
  %full = icmp sgt i64 %bytes, 0
  %go = and i1 %some, %full
  br i1 %go, label %row, label %done
row:
  %r = phi i64 [ 0, %entry ], [ %r.next, %row.done ]
  %order.at = getelementptr i64, ptr %order, i64 %r
  %which = load i64, ptr %order.at, align 8
  %from.offset = mul i64 %which, %bytes
  %to.offset = mul i64 %r, %bytes
  %source = getelementptr i8, ptr %from, i64 %from.offset
  %target = getelementptr i8, ptr %to, i64 %to.offset
  br label %chunk
chunk:
  %at = phi i64 [ 0, %row ], [ %at.next, %copied ]
  %last = icmp sge i64 %at, %end
  %here = select i1 %last, i64 %end, i64 %at
  %s = getelementptr i8, ptr %source, i64 %here
  %t = getelementptr i8, ptr %target, i64 %here
  br i1 %wide, label %copy64, label %small
small:
  br i1 %middle, label %copy8, label %smaller
smaller:
  br i1 %narrow, label %copy4, label %copy1
copy64:
  %v64 = load <16 x i32>, ptr %s, align 1
  store <16 x i32> %v64, ptr %t, align 1
  br label %copied
copy8:
  %v8 = load i64, ptr %s, align 1
  store i64 %v8, ptr %t, align 1
  br label %copied
copy4:
  %v4 = load i32, ptr %s, align 1
  store i32 %v4, ptr %t, align 1
  br label %copied
copy1:
  %v1 = load i8, ptr %s, align 1
  store i8 %v1, ptr %t, align 1
  br label %copied
copied:
  %at.next = add i64 %here, %block
  br i1 %last, label %row.done, label %chunk
row.done:
  %r.next = add i64 %r, 1
  %more = icmp slt i64 %r.next, %n
  br i1 %more, label %row, label %done
done:
  ret void
}

"""


def _field(name: str) -> str:
    """Load a field of the job."""
    at = f"  %{name}.at = getelementptr i64, ptr %job, i64 {FIELDS.index(name)}\n"
    return at + f"  %{name} = load {'ptr' if name in POINTERS else 'i64'}, ptr %{name}.at, align 8\n"


def _item(prefix: str, fields: tuple[str, ...], name: str) -> str:
    """Load a field of the input or sum at %prefix."""
    at = f"  %{prefix}.{name}.at = getelementptr i64, ptr %{prefix}, i64 {fields.index(name)}\n"
    return at + (
        f"  %{prefix}.{name} = load {'ptr' if name in POINTERS else 'i64'}, ptr %{prefix}.{name}.at, align 8\n"
    )


_WORDS = threads.words("%pool")
_EPOCH = f"""
entry:
{"".join(map(_field, FIELDS))}\
  store i64 0, ptr %steps.at, align 8
  store i64 -1, ptr %nonfinite.at, align 8
  %alone = {_WORDS[0]}
  %own = {_WORDS[1]}
  %words = {_WORDS[2]}
  %soft = getelementptr i8, ptr %words, i64 {threads.SOFT}
  %ordered = icmp ne ptr %order, null
  %sized = icmp sge i64 %batch_index, 0
  br label %next
next:
  %here = phi i64 [ %position, %entry ], [ %here.next, %summed ]
  %count = phi i64 [ 0, %entry ], [ %count.next, %summed ]
  %more = icmp slt i64 %here, %stop
  %now = load atomic i32, ptr %soft monotonic, align 4
  %go = icmp eq i32 %now, 0
  %on = and i1 %more, %go
  br i1 %on, label %batch.of, label %finished
batch.of:
  %left = sub i64 %examples, %here
  %ragged = icmp slt i64 %left, %batch
  %n = select i1 %ragged, i64 %left, i64 %batch
  br i1 %sized, label %resize, label %feed
resize:
  %size.at = getelementptr i64, ptr %sizes, i64 %batch_index
  store i64 %n, ptr %size.at, align 8
  br label %feed
feed:
  %k = phi i64 [ 0, %batch.of ], [ 0, %resize ], [ %k.next, %fed ]
  %another = icmp slt i64 %k, %ninputs
  br i1 %another, label %input.of, label %run
input.of:
  %k.offset = mul i64 %k, {8 * len(INPUT_FIELDS)}
  %input = getelementptr i8, ptr %inputs, i64 %k.offset
{"".join(_item("input", INPUT_FIELDS, f) for f in INPUT_FIELDS)}\
  %slot.at = getelementptr ptr, ptr %slots, i64 %input.slot
  br i1 %ordered, label %gather, label %view
gather:
  %order.at.here = getelementptr i64, ptr %order, i64 %here
  call void @nnc.rows(ptr %input.buffer, ptr %input.rows, i64 %input.row_bytes, ptr %order.at.here, i64 %n)
  store ptr %input.buffer, ptr %slot.at, align 8
  br label %fed
view:
  %row.offset = mul i64 %here, %input.row_bytes
  %row = getelementptr i8, ptr %input.rows, i64 %row.offset
  store ptr %row, ptr %slot.at, align 8
  br label %fed
fed:
  %k.next = add i64 %k, 1
  br label %feed
run:
  %code = call i32 %step(ptr %sizes, ptr %slots, ptr %arena, ptr %pool)
  %fine = icmp eq i32 %code, 0
  br i1 %fine, label %stepped, label %failed
failed:
  ret i32 %code
stepped:
  %here.next = add i64 %here, %n
  %count.next = add i64 %count, 1
  store i64 %here.next, ptr %position.at, align 8
  store i64 %count.next, ptr %steps.at, align 8
  %n.f64 = sitofp i64 %n to double
  br label %sum
sum:
  %m = phi i64 [ 0, %stepped ], [ %m.next, %add ]
  %clean = phi i1 [ true, %stepped ], [ %clean.next, %add ]
  %another.sum = icmp slt i64 %m, %nsums
  br i1 %another.sum, label %sum.of, label %summed
sum.of:
  %m.offset = mul i64 %m, {8 * len(SUM_FIELDS)}
  %sum.item = getelementptr i8, ptr %sums, i64 %m.offset
{"".join(_item("sum.item", SUM_FIELDS, f) for f in SUM_FIELDS)}\
  %value.slot = getelementptr ptr, ptr %slots, i64 %sum.item.slot
  %value.at = load ptr, ptr %value.slot, align 8
  %is.f32 = icmp eq i64 %sum.item.dtype, 0
  br i1 %is.f32, label %f32, label %not.f32
not.f32:
  %is.f64 = icmp eq i64 %sum.item.dtype, 1
  br i1 %is.f64, label %f64, label %not.f64
not.f64:
  %is.i32 = icmp eq i64 %sum.item.dtype, 2
  br i1 %is.i32, label %i32, label %not.i32
not.i32:
  %is.i64 = icmp eq i64 %sum.item.dtype, 3
  br i1 %is.i64, label %i64, label %bool
f32:
  %raw.f32 = load float, ptr %value.at, align 4
  %value.f32 = fpext float %raw.f32 to double
  br label %add
f64:
  %value.f64 = load double, ptr %value.at, align 8
  br label %add
i32:
  %raw.i32 = load i32, ptr %value.at, align 4
  %value.i32 = sitofp i32 %raw.i32 to double
  br label %add
i64:
  %raw.i64 = load i64, ptr %value.at, align 8
  %value.i64 = sitofp i64 %raw.i64 to double
  br label %add
bool:
  %raw.bool = load i8, ptr %value.at, align 1
  %value.bool = uitofp i8 %raw.bool to double
  br label %add
add:
  %value = phi double [ %value.f32, %f32 ], [ %value.f64, %f64 ], [ %value.i32, %i32 ], [ %value.i64, %i64 ], \
[ %value.bool, %bool ]
  %weighed = icmp eq i64 %sum.item.kind, 0
  %product = fmul double %value, %n.f64
  %term = select i1 %weighed, double %product, double %value
  %total.at = getelementptr double, ptr %totals, i64 %m
  %total = load double, ptr %total.at, align 8
  %total.next = fadd double %total, %term
  store double %total.next, ptr %total.at, align 8
  %zero = fsub double %value, %value
  %finite = fcmp oeq double %zero, 0.0
  %clean.next = and i1 %clean, %finite
  %m.next = add i64 %m, 1
  br label %sum
summed:
  br i1 %clean, label %next, label %stopped
stopped:
  store i64 %count, ptr %nonfinite.at, align 8
  ret i32 0
finished:
  ret i32 %now
}}
"""
