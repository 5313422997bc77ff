"""Two functions more of a network that trains: the order of the examples in an epoch, and an epoch.

In: an interface. Out: their parameters for the header, their scratch memory, their LLVM IR. An epoch takes examples
from a function of the caller, so that they may lie in flash, on a card, or come from a sensor; it does what `nnc train`
does between two evaluations, and with the same order gives the same bits.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from ...dsl.record import dataclass
from ..llvm.environment import guarded
from ..llvm.text import TYPES, symbol
from ..native.target import Target
from ..types.sizes import symbol as size_symbol
from ..types.tensors import FLOATS
from .interface import NOT_FINITE, OK, ROWS, SCRATCH, SIZE, C, Call, Interface
from .structs import BYTES, Field, free

_WORD = 8  # to which buffers of examples are aligned


@dataclass(frozen=True, slots=True)
class Row:
    """What one example is of an input of the step."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return BYTES[self.dtype] * prod(self.shape)

    @property
    def declared(self) -> str:
        """As the parameter of the function that fills it."""
        inner = "".join(f"[{n}]" for n in self.shape)
        return f"{C[self.dtype]} {self.name}{inner}" if self.shape else f"{C[self.dtype]} *{self.name}"


def rows(face: Interface, train: Call) -> tuple[Row, ...] | None:
    """Of the inputs of the step; None where it takes something that does not come by examples, or has no metrics."""
    spec = face.manifest.train
    if spec is None or [size for size, _ in train.sizes] != [spec.batch_size] or not face.metrics.fields:
        return None
    if any(f.dtype not in FLOATS and _over(f, face) == "mean" for f in face.metrics.fields):
        return None
    found: list[Row] = []
    for p in train.inputs:
        inner = [n for n in p.shape[1:] if isinstance(n, int)]
        if not p.shape or p.shape[0] != size_symbol(str(spec.batch_size)) or len(inner) < len(p.shape) - 1:
            return None
        found.append(Row(free(p.name, {"user", "example", *(r.name for r in found)}), p.dtype, tuple(inner)))
    return tuple(found)


def declarations(face: Interface, train: Call, examples: tuple[Row, ...] | None, prefix: str) -> list[str]:
    """For the header."""
    big = prefix.upper()
    lines = [
        f"#define {big}_ORDER_SCRATCH(n) (8u * (size_t)(n) + {_WORD - 1}u)", "",
        "/* The order in which `nnc train` takes so many examples in an epoch, counted from 0, with that seed. */",
        f"int32_t {prefix}_order(uint32_t *order, size_t n, int64_t seed, int64_t epoch, void *scratch,",
        "    size_t bytes);", "",
    ]  # fmt: skip
    if examples is None:
        return [*lines, "/* There is no function for an epoch: its inputs do not all come by examples. */", ""]
    whole = " + ".join(f"({r.nbytes}u * (size_t)(batch) + {_WORD - 1}u) / {_WORD}u * {_WORD}u" for r in examples)
    given = ", ".join(r.declared for r in examples)
    return [
        *lines,
        f"#define {big}_EPOCH_SCRATCH(batch) ({whole} + {big}_TRAIN_SCRATCH(batch) + {_WORD - 1}u)", "",
        "/* Gives an example; what is not 0 ends the epoch. */",
        f"typedef int32_t (*{prefix}_rows)(void *user, uint32_t example, {given});", "",
        "/* Train on n examples in that order (as they stand, where it is null), and count the epoch in the state. */",
        f"int32_t {prefix}_epoch({prefix}_state *s, {prefix}_rows rows, void *user, const uint32_t *order, size_t n,",
        f"    size_t batch, {prefix}_metrics *out, void *scratch, size_t bytes);", "",
    ]  # fmt: skip


def text(face: Interface, train: Call, examples: tuple[Row, ...] | None, prefix: str, target: Target) -> str:
    """`PREFIX_order`, and `PREFIX_epoch` where there are `examples`."""
    parts = [Path(__file__).with_name("order.ll").read_text("ascii"), _order(prefix, target)]
    if examples is not None:
        parts += [_epoch(face, train, examples, prefix, target)]
    return "\n".join(parts)


def _wide(name: str, target: Target) -> str:
    """A size as an i64, `%NAME.wide`."""
    same = target.pointer_bits == 64
    return f"%{name}.wide = {'add i64 0, ' if same else 'zext i32 '}%{name}{'' if same else ' to i64'}"


def _order(prefix: str, target: Target) -> str:
    size = f"i{target.pointer_bits}"
    name = symbol(f"{prefix}_order", "@")
    return f"""define i32 {name}(ptr %order, {size} %n, i64 %seed, i64 %epoch, ptr %scratch, {size} %bytes) #0 {{
entry:
  {_wide("n", target)}
  {_wide("bytes", target)}
  %many = icmp ugt i64 %n.wide, 2147483647
  br i1 %many, label %size, label %sized
size:
  ret i32 {SIZE}
sized:
  %keys = shl i64 %n.wide, 3
  %needed = add i64 %keys, {_WORD - 1}
  %little = icmp ult i64 %bytes.wide, %needed
  br i1 %little, label %scratch.missing, label %fine
scratch.missing:
  ret i32 {SCRATCH}
fine:
{_aligned(size)}
  call void @nnc.order(ptr %order, ptr %start, i64 %n.wide, i64 %seed, i64 %epoch)
  ret i32 {OK}
}}
"""


def _aligned(size: str) -> str:
    """`%start`, in the scratch memory."""
    return f"""  %address = ptrtoint ptr %scratch to {size}
  %over = sub {size} 0, %address
  %by = and {size} %over, {_WORD - 1}
  %start = getelementptr i8, ptr %scratch, {size} %by"""


def _epoch(face: Interface, train: Call, examples: tuple[Row, ...], prefix: str, target: Target) -> str:
    size = f"i{target.pointer_bits}"
    narrow = "add i64 0, %{0}" if size == "i64" else "trunc i64 %{0} to i32"
    metrics = face.metrics.fields
    totals = [f"  %total.{k} = alloca double, align 8\n  store double 0.0, ptr %total.{k}" for k in range(len(metrics))]
    buffers, before = [], "%start"
    for k, r in enumerate(examples):
        buffers += [
            f"  %bytes.{k} = mul i64 %batch.wide, {r.nbytes}",
            f"  %up.{k} = add i64 %bytes.{k}, {_WORD - 1}",
            f"  %whole.{k} = and i64 %up.{k}, -{_WORD}",
            f"  %buffer.{k} = getelementptr i8, ptr {before}, i64 0",
            f"  %after.{k} = getelementptr i8, ptr {before}, i64 %whole.{k}",
        ]
        before = f"%after.{k}"
    taken = [f"  %taken.0 = add i64 0, {_WORD - 1}"]
    taken += [f"  %taken.{k + 1} = add i64 %taken.{k}, %whole.{k}" for k in range(len(examples))]
    every = len(examples)
    given = []
    for k, r in enumerate(examples):
        given += [f"  %row.{k}.offset = mul i64 %i, {r.nbytes}",
                  f"  %row.{k} = getelementptr i8, ptr %buffer.{k}, i64 %row.{k}.offset"]  # fmt: skip
    arguments = "".join(f", ptr %row.{k}" for k in range(every))
    step = f"ptr %s, {size} %now.size{''.join(f', ptr %buffer.{k}' for k in range(every))}, ptr %metrics, ptr {before}"
    step += f", {size} %left.size"
    outer, inner = guarded(
        f"{prefix}_epoch",
        f"ptr %s, ptr %rows, ptr %user, ptr %order, {size} %n, {size} %batch, ptr %out, ptr %scratch, {size} %bytes",
    )
    place = next(f.offset for f in face.state.fields if f.name == "epoch")
    return f"""{inner} {{
entry:
  %metrics = alloca [{face.metrics.nbytes} x i8], align 8
{chr(10).join(totals)}
  {_wide("n", target)}
  {_wide("batch", target)}
  {_wide("bytes", target)}
  %n.less = sub i64 %n.wide, 1
  %n.bad = icmp ugt i64 %n.less, 2147483646
  %batch.less = sub i64 %batch.wide, 1
  %batch.bad = icmp ugt i64 %batch.less, {train.limit - 1}
  %bad = or i1 %n.bad, %batch.bad
  br i1 %bad, label %size, label %sized
size:
  ret i32 {SIZE}
sized:
{_aligned(size)}
{chr(10).join(buffers)}
{chr(10).join(taken)}
  %little = icmp ult i64 %bytes.wide, %taken.{every}
  br i1 %little, label %scratch.missing, label %next
scratch.missing:
  ret i32 {SCRATCH}
next:
  %done = phi i64 [ 0, %sized ], [ %done.next, %counted ]
  %rest = sub i64 %n.wide, %done
  %more = icmp sgt i64 %rest, 0
  br i1 %more, label %batch.of, label %finished
batch.of:
  %few = icmp slt i64 %rest, %batch.wide
  %now = select i1 %few, i64 %rest, i64 %batch.wide
  br label %row
row:
  %i = phi i64 [ 0, %batch.of ], [ %i.next, %given ]
  %which = add i64 %done, %i
  %ordered = icmp ne ptr %order, null
  br i1 %ordered, label %look, label %as.they.stand
look:
  %order.at = getelementptr i32, ptr %order, i64 %which
  %example.ordered = load i32, ptr %order.at, align 4
  br label %ask
as.they.stand:
  %example.plain = trunc i64 %which to i32
  br label %ask
ask:
  %example = phi i32 [ %example.ordered, %look ], [ %example.plain, %as.they.stand ]
{chr(10).join(given)}
  %failed = call i32 %rows(ptr %user, i32 %example{arguments})
  %got = icmp eq i32 %failed, 0
  br i1 %got, label %given, label %rows.missing
rows.missing:
  ret i32 {ROWS}
given:
  %i.next = add i64 %i, 1
  %another = icmp slt i64 %i.next, %now
  br i1 %another, label %row, label %run
run:
  %now.size = {narrow.format("now")}
  %left = sub i64 %bytes.wide, %taken.{every}
  %left.size = {narrow.format("left")}
  %code = call i32 {symbol(f"{prefix}_train", "@")}({step})
  %fine = icmp eq i32 %code, 0
  br i1 %fine, label %count, label %refused
refused:
  ret i32 %code
count:
  %weight = sitofp i64 %now to double
{chr(10).join(_add(k, f, face) for k, f in enumerate(metrics))}
  %finite.0 = or i1 true, true
{chr(10).join(f"  %finite.{k + 1} = and i1 %finite.{k}, %is.finite.{k}" for k in range(len(metrics)))}
  br i1 %finite.{len(metrics)}, label %counted, label %not.finite
not.finite:
  ret i32 {NOT_FINITE}
counted:
  %done.next = add i64 %done, %now
  br label %next
finished:
  %examples = sitofp i64 %n.wide to double
{chr(10).join(_result(k, f, face) for k, f in enumerate(metrics))}
  %epoch.at = getelementptr i8, ptr %s, i64 {place}
  %epoch = load i64, ptr %epoch.at, align 8
  %epoch.next = add i64 %epoch, 1
  store i64 %epoch.next, ptr %epoch.at, align 8
  ret i32 {OK}
}}
{outer}"""


def _over(f: Field, face: Interface) -> str:
    assert face.manifest.train is not None
    return next(m.over for m in face.manifest.train.metrics if m.name == f.path)


def _add(k: int, f: Field, face: Interface) -> str:
    """Add a metric of the step to its total, times the number of examples where it is a mean."""
    type_ = {"bool": "i8"}.get(f.dtype, TYPES[f.dtype])
    wide = {"f32": "fpext float {0} to double", "f64": "fadd double {0}, -0.0", "bool": "uitofp i8 {0} to double"}
    text = wide.get(f.dtype, f"sitofp {type_} {{0}} to double").format(f"%raw.{k}")
    term = f"fmul double %value.{k}, %weight" if _over(f, face) == "mean" else f"fadd double %value.{k}, -0.0"
    return f"""  %metric.{k} = getelementptr i8, ptr %metrics, i64 {f.offset}
  %raw.{k} = load {type_}, ptr %metric.{k}
  %value.{k} = {text}
  %zero.{k} = fsub double %value.{k}, %value.{k}
  %is.finite.{k} = fcmp oeq double %zero.{k}, 0.0
  %term.{k} = {term}
  %sum.{k} = load double, ptr %total.{k}
  %sum.next.{k} = fadd double %sum.{k}, %term.{k}
  store double %sum.next.{k}, ptr %total.{k}"""


def _result(k: int, f: Field, face: Interface) -> str:
    type_ = {"bool": "i8"}.get(f.dtype, TYPES[f.dtype])
    mean = f"fdiv double %all.{k}, %examples" if _over(f, face) == "mean" else f"fadd double %all.{k}, -0.0"
    back = {"f32": "fptrunc double {0} to float", "f64": "fadd double {0}, -0.0"}
    text = back.get(f.dtype, f"fptosi double {{0}} to {type_}").format(f"%whole.metric.{k}")
    return f"""  %all.{k} = load double, ptr %total.{k}
  %whole.metric.{k} = {mean}
  %result.{k} = {text}
  %out.{k} = getelementptr i8, ptr %out, i64 {f.offset}
  store {type_} %result.{k}, ptr %out.{k}"""
