"""The floating-point environment: code computes in the default one, and the caller finds its own again.

A process may flush subnormals to zero (loading a library that was linked with -ffast-math is enough) or round other
than to nearest; the bits would be others. So every function that the outside calls is `guarded`: it only calls the one
that works, between `nnc.enter` and `nnc.leave`. LLVM may move arithmetic across the two, as it knows nothing of such
registers, but not out of a function that is never inlined. A thread of ours enters once. The register is written only
where it says otherwise: a write costs more than some kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...dsl.record import dataclass
from .text import symbol

if TYPE_CHECKING:
    from ..native.target import Target


@dataclass(frozen=True, slots=True)
class _Control:
    """The register of an architecture: round to nearest, no flushing and no traps are its `default`, in the bits of
    `mask`; the others tell what has happened."""

    default: int
    mask: int
    declarations: str
    get: str  # %control, an i64
    set: str  # from %control


_ARCHITECTURES: Mapping[str, _Control] = {
    "x86_64": _Control(
        0x1F80, 0xFFC0, "declare void @llvm.x86.sse.stmxcsr(ptr)\ndeclare void @llvm.x86.sse.ldmxcsr(ptr)\n",
        "%at = alloca i32, align 4\n  call void @llvm.x86.sse.stmxcsr(ptr %at)\n"
        "  %mxcsr = load i32, ptr %at, align 4\n  %control = zext i32 %mxcsr to i64",
        "%at = alloca i32, align 4\n  %mxcsr = trunc i64 %control to i32\n  store i32 %mxcsr, ptr %at, align 4\n"
        "  call void @llvm.x86.sse.ldmxcsr(ptr %at)"),
    "aarch64": _Control(
        0, -1, "declare i64 @llvm.aarch64.get.fpcr()\ndeclare void @llvm.aarch64.set.fpcr(i64)\n",
        "%control = call i64 @llvm.aarch64.get.fpcr()", "call void @llvm.aarch64.set.fpcr(i64 %control)"),
    "arm": _Control(
        0, 0x1C09F00, "declare i32 @llvm.arm.get.fpscr()\ndeclare void @llvm.arm.set.fpscr(i32)\n",
        "%fpscr = call i32 @llvm.arm.get.fpscr()\n  %control = zext i32 %fpscr to i64",
        "%fpscr = trunc i64 %control to i32\n  call void @llvm.arm.set.fpscr(i32 %fpscr)"),
    "riscv": _Control(
        1, -1, "declare i32 @llvm.get.rounding()\ndeclare void @llvm.set.rounding(i32)\n",
        "%mode = call i32 @llvm.get.rounding()\n  %control = zext i32 %mode to i64",
        "%mode = trunc i64 %control to i32\n  call void @llvm.set.rounding(i32 %mode)"),
}  # fmt: skip
_NONE = _Control(0, -1, "", "%control = add i64 0, 0", "")  # what has no such register, or is not known


def _control(target: Target) -> _Control:
    """ARM before 64 bits and RISC-V may be without floats: then there is nothing to set."""
    machine = target.triple.split("-")[0]
    if machine.startswith(("arm", "thumb")):
        return _ARCHITECTURES["arm"] if target.triple.endswith("hf") else _NONE
    if machine.startswith("riscv"):
        return _ARCHITECTURES["riscv"] if "+f" in target.features.split(",") else _NONE
    return _ARCHITECTURES.get(machine, _NONE)


def environment(target: Target) -> str:
    """`nnc.enter`, which sets the default environment and gives the one there was, and `nnc.leave`, which takes it."""
    c = _control(target)
    return f"""{c.declarations}
define internal void @nnc.control(i64 %control) alwaysinline #0 {{
  {c.set}
  ret void
}}

define internal i1 @nnc.is.default(i64 %control) alwaysinline #0 {{
  %set = and i64 %control, {c.mask}
  %is = icmp eq i64 %set, {c.default}
  ret i1 %is
}}

define internal i64 @nnc.enter() alwaysinline #0 {{
  {c.get}
  %is = call i1 @nnc.is.default(i64 %control)
  br i1 %is, label %entered, label %other
other:
  call void @nnc.control(i64 {c.default})
  br label %entered
entered:
  ret i64 %control
}}

define internal void @nnc.leave(i64 %control) alwaysinline #0 {{
  %is = call i1 @nnc.is.default(i64 %control)
  br i1 %is, label %left, label %other
other:
  call void @nnc.control(i64 %control)
  br label %left
left:
  ret void
}}
"""


def guarded(name: str, parameters: str, linkage: str = "") -> tuple[str, str]:
    """An exported function `i32 name(parameters)`, and the first line of the one that works in its place."""
    outer, inner = symbol(name, "@"), symbol(f"nnc.in.{name}", "@")
    text = f"""define {linkage}i32 {outer}({parameters}) #0 {{
  %control = call i64 @nnc.enter()
  %code = call i32 {inner}({parameters})
  call void @nnc.leave(i64 %control)
  ret i32 %code
}}
"""
    return text, f"define internal i32 {inner}({parameters}) noinline #0"
