"""The functions of an interface as LLVM IR: they judge what they are given, lay it out as entries want it, call them.

In: an interface. Out: text for `llvm.emit`. Nothing is written before all checks of arguments have passed, there are no
globals but constants, and what is read of a struct is read at the places that `structs` says.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from ..llvm.expressions import Evaluator
from ..llvm.text import Externals, Function, float_bits, symbol
from ..llvm.values import Index, Term
from ..loops.ir import size_expr
from ..native.target import Target
from ..types.sizes import Dim, Quotient, Symbol, terms
from . import epoch
from .interface import CPU, FAULTS, LAYOUT, OK, SCRATCH, SIZE, Argument, Call, Interface, Member, Own, Passed
from .processor import lacks_instructions

_LARGE = 2.0**62  # bytes
_COMPARE = {"==": "eq", "!=": "ne", "<": "slt", "<=": "sle", ">": "sgt", ">=": "sge"}


def alignment(target: Target) -> int:
    """Of the part of the scratch memory that is used: that of a vector."""
    return max(8, target.vector_bytes)


def glue(face: Interface, prefix: str, target: Target, trained: bytes | None) -> str:
    """All functions of the interface; `trained` is what a constant of prepared weights holds."""
    parts = [_function(c, face, prefix, target) for c in face.calls]
    for c in face.calls:
        if c.name == "train":
            parts.append(epoch.text(face, c, epoch.rows(face, c), prefix, target))
    parts += [_message(face, prefix), _check(face, prefix, target)]
    parts.append(Path(__file__).with_name("memory.ll").read_text("ascii"))
    if trained is not None:
        stored = "".join(f"\\{b:02X}" for b in trained)
        parts.append(f'{symbol(f"{prefix}_trained", "@")} = constant [{len(trained)} x i8] c"{stored}", align 64\n')
    return "\n".join(parts)


class _Writer:
    """One function while it is written."""

    def __init__(self, call: Call, target: Target):
        self.e = Evaluator(Function(Externals()))
        self.fn, self.call, self.wide = self.e.fn, call, f"i{target.pointer_bits}"
        self.refs = {p.name: self.fn.name(p.name) for p in call.parameters}
        for size, parameter in call.sizes:
            self.e.names[size] = Index((Term(self.number(parameter), 0, 1),))

    def number(self, parameter: str) -> str:
        """A size as an i64."""
        return self.refs[parameter] if self.wide == "i64" else self.value(f"zext i32 {self.refs[parameter]} to i64")

    def value(self, text: str, stem: str = "t") -> str:
        return self.fn.value(text, stem)

    def size(self, formula: Dim) -> str:
        return self.e.scalar(self.e.evaluate(size_expr(formula))).ref

    def refuse(self, condition: str, code: int) -> None:
        """Return a code where it holds."""
        before = self.fn.block
        bad = self.fn.start("refused")
        bad.end = f"ret i32 {code}"
        good = self.fn.start("fine")
        before.end = f"br i1 {condition}, label %{bad.label}, label %{good.label}"

    def behind(self, pointer: str, offset: int) -> str:
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}", "at") if offset else pointer

    def at(self, m: Member) -> str:
        return self.behind(self.refs[m.parameter], m.offset)


def _function(call: Call, face: Interface, prefix: str, target: Target) -> str:
    w = _Writer(call, target)
    _judge(w, face)
    arena = _arena(w, target)
    if call.begins:
        _begin(w, face)
    for to, source, nbytes in call.copies:
        match to, source:
            case Member(), Passed(parameter, type_):
                w.fn.line(f"store {type_} {w.refs[parameter]}, ptr {w.at(to)}")
            case Member(), Member():
                w.fn.line(f"call void @nnc.copy(ptr {w.at(to)}, ptr {w.at(source)}, i64 {nbytes})")
    if not call.entry:
        w.fn.block.end = "ret i32 0"
    else:
        code = w.value(f"call i32 {symbol(call.entry, '@')}({_arguments(w, arena)})", "code")
        w.fn.block.end = f"ret i32 {_translated(w, code)}"
    types = {p.name: w.wide if p.type == "size" else p.type for p in call.parameters}
    given = ", ".join(f"{types[name]} {ref}" for name, ref in w.refs.items())
    text = w.fn.text(f"define i32 {symbol(f'{prefix}_{call.name}', '@')}({given}) #0")
    return f"{text}\n{_codes(call)}"


def _judge(w: _Writer, face: Interface) -> None:
    """The state is of this network; sizes are such that the entry may run."""
    call = w.call
    if call.parameters and call.parameters[0].held == "state" and not call.begins:
        found = w.value(f"load i64, ptr {w.refs['s']}, align 8", "layout")
        w.refuse(w.value(f"icmp ne i64 {found}, {_signed(face.layout)}"), LAYOUT)
    for size, _ in call.sizes:
        w.refuse(w.value(f"icmp ugt i64 {w.e.scalar(w.e.names[size]).ref}, {call.limit}"), SIZE)
    for formula in call.formulas:  # sizes that are small each may be large together
        n = _about(w, formula)
        w.refuse(w.value(f"fcmp ogt double {n}, {float_bits(_LARGE, 'f64')}"), SIZE)
    for guard in call.guards:
        some = "false"
        for r in guard.relations:
            holds = w.value(f"icmp {_COMPARE[r.op]} i64 {w.size(r.left)}, {w.size(r.right)}", "holds")
            some = w.value(f"or i1 {some}, {holds}", "some")
        w.refuse(w.value(f"xor i1 {some}, true"), SIZE)


def _about(w: _Writer, formula: Dim) -> str:
    """A size as a double, which does not wrap: the sum of all its terms as if none were subtracted."""
    total = "0.0"
    for monomial, k in terms(formula):
        product = float_bits(float(abs(k)), "f64")
        for atom in monomial:
            match atom:
                case Symbol(name):
                    ref = w.e.scalar(w.e.names[name]).ref
                    factor = w.value(f"uitofp i64 {ref} to double")
                case Quotient(op, top, bottom):
                    factor = _about(w, top if op == "//" else bottom)
            product = w.value(f"fmul double {product}, {factor}")
        total = w.value(f"fadd double {total}, {product}")
    return total


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _arena(w: _Writer, target: Target) -> str:
    """The arena in the scratch memory, aligned; null where none is wanted."""
    call = w.call
    if call.arena == 0:
        return "null"
    names = dict(w.e.names)
    for size, most in call.most.items():
        n = w.e.scalar(w.e.names[size]).ref
        more = w.value(f"icmp sgt i64 {n}, {most}")
        w.e.names[size] = Index((Term(w.value(f"select i1 {more}, i64 {most}, i64 {n}"), 0, 1),))
    needed = w.size(call.arena + alignment(target) - 1)
    w.e.names = names
    scratch, nbytes = (p.name for p in call.parameters[-2:])
    w.refuse(w.value(f"icmp ult i64 {w.number(nbytes)}, {needed}"), SCRATCH)
    address = w.value(f"ptrtoint ptr {w.refs[scratch]} to {w.wide}", "address")
    over = w.value(f"sub {w.wide} 0, {address}")
    by = w.value(f"and {w.wide} {over}, {alignment(target) - 1}")
    return w.value(f"getelementptr i8, ptr {w.refs[scratch]}, {w.wide} {by}", "arena")


def _begin(w: _Writer, face: Interface) -> None:
    """A state of zeros, but for its layout, the seed, how many steps there will be, and what multiplies inputs."""
    at = w.refs["s"]
    w.fn.line(f"call void @nnc.fill(ptr {at}, i64 {face.state.nbytes // 8})")
    places = {f.name: f.offset for f in face.state.fields}
    for name, value in (("layout", _signed(face.layout)), ("seed", w.refs["seed"]), ("steps", w.refs["steps"])):
        w.fn.line(f"store i64 {value}, ptr {w.behind(at, places[name])}, align 8")
    for path, offset, f in face.state.places():
        if path.startswith("normalize/") and path.endswith("/scale"):
            w.fn.line(f"call void @nnc.ones.{f.dtype}(ptr {w.behind(at, offset)}, i64 {prod(f.shape)})")


def _arguments(w: _Writer, arena: str) -> str:
    """Sizes and slots on the stack, as an entry wants them."""
    fn, call = w.fn, w.call
    sizes = slots = "null"
    if call.sizes:
        sizes = fn.alloca(f"[{len(call.sizes)} x i64]", "sizes")
        for k, (size, _) in enumerate(call.sizes):
            fn.line(f"store i64 {w.e.scalar(w.e.names[size]).ref}, ptr {w.behind(sizes, 8 * k)}, align 8")
    if call.slots:
        slots = fn.alloca(f"[{len(call.slots)} x ptr]", "slots")
        for k, source in enumerate(call.slots):
            match source:
                case Argument(parameter):
                    pointer = w.refs[parameter]
                case Passed(parameter, type_):
                    pointer = fn.alloca(type_, parameter)
                    fn.line(f"store {type_} {w.refs[parameter]}, ptr {pointer}")
                case Member():
                    pointer = w.at(source)
                case Own(nbytes):
                    pointer = fn.alloca(f"[{nbytes} x i8]", "own") if nbytes else "null"
            place = w.value(f"getelementptr ptr, ptr {slots}, i64 {k}", "at")
            fn.line(f"store ptr {pointer}, ptr {place}")
    return f"ptr {sizes}, ptr {slots}, ptr {arena}, ptr null"


def _translated(w: _Writer, code: str) -> str:
    """A code of the entry as one of the interface."""
    if w.call.codes == tuple(range(1, len(w.call.codes) + 1)):
        return code
    before = w.fn.value(f"zext i32 {code} to i64")
    place = w.value(f"getelementptr i32, ptr {symbol(f'nnc.codes.{w.call.name}', '@')}, i64 {before}", "at")
    return w.value(f"load i32, ptr {place}, align 4", "code")


def _codes(call: Call) -> str:
    if call.codes == tuple(range(1, len(call.codes) + 1)):
        return ""
    values = ", ".join(f"i32 {c}" for c in (0, *call.codes))
    return f"{symbol(f'nnc.codes.{call.name}', '@')} = internal constant [{len(call.codes) + 1} x i32] [{values}]\n"


def _message(face: Interface, prefix: str) -> str:
    """What a code says, in words; never null. The codes follow each other, so that texts are found by their offsets: a
    table of pointers would be one that a loader writes."""
    said = {OK: "no error", **{-k: message for k, message in enumerate(FAULTS.values(), 1)}}
    said |= {k: message for k, (_, message) in enumerate(face.checks, 1)}
    first, texts, offsets = min(said), b"an unknown code\0", []
    for code in range(first, max(said) + 1):
        offsets.append(len(texts))
        texts += said[code].encode() + b"\0"
    stored = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:02X}" for c in texts)
    return f"""@nnc.said = internal constant [{len(texts)} x i8] c"{stored}"
@nnc.said.at = internal constant [{len(offsets)} x i32] [{", ".join(f"i32 {n}" for n in offsets)}]

define ptr {symbol(f"{prefix}_message", "@")}(i32 %code) #0 {{
  %index = sub i32 %code, {first}
  %known = icmp ult i32 %index, {len(offsets)}
  %some = select i1 %known, i32 %index, i32 0
  %index.wide = zext i32 %some to i64
  %at = getelementptr i32, ptr @nnc.said.at, i64 %index.wide
  %found = load i32, ptr %at, align 4
  %offset = select i1 %known, i32 %found, i32 0
  %offset.wide = zext i32 %offset to i64
  %said = getelementptr i8, ptr @nnc.said, i64 %offset.wide
  ret ptr %said
}}
"""


def _check(face: Interface, prefix: str, target: Target) -> str:
    """Whether header and object are of the same network, and the processor is one for it."""
    name = symbol(f"{prefix}_check", "@")
    return f"""{lacks_instructions(target)}
define i32 {name}(i64 %header) #0 {{
  %other = icmp ne i64 %header, {_signed(face.header)}
  %lacks = call i1 @nnc.lacks.instructions()
  %processor = select i1 %lacks, i32 {CPU}, i32 0
  %code = select i1 %other, i32 {LAYOUT}, i32 %processor
  ret i32 %code
}}
"""
