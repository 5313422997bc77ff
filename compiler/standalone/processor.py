"""Whether the processor has the instructions that code is made of, asked where it runs: a wrong answer is a SIGILL."""

from __future__ import annotations

from ..native.target import LEVELS, Target

# bits of the answers of `cpuid`: ECX of leaf 1, EBX of leaf 7, ECX of leaf 0x80000001; and of XCR0, the registers that
# the system saves (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A)
_NEEDED = {
    "x86-64-v2": ((9, 13, 20, 23), (), (), ()),
    "x86-64-v3": ((12, 22, 27, 28, 29), (3, 5, 8), (5,), (1, 2)),
    "x86-64-v4": ((), (16, 17, 28, 30, 31), (), (5, 6, 7)),
}
_CLOBBERED = "~{dirflag},~{fpsr},~{flags}"
_CPUID = f"={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},{_CLOBBERED}"
_ALWAYS = """define internal i1 @nnc.lacks.instructions() #0 {
  ret i1 false
}
"""


# (1 + 2^-12)² - (1 + 2^-11) is 2^-24, and 0 where the square was rounded
_FUSES = """@nnc.probe = internal constant [3 x float] [float 0x3FF0010000000000, float 0x3FF0010000000000,
  float 0xBFF0020000000000], align 16

define internal i1 @nnc.lacks.instructions() noinline #0 {
  %a = load volatile float, ptr @nnc.probe, align 4
  %c.at = getelementptr float, ptr @nnc.probe, i64 2
  %c = load volatile float, ptr %c.at, align 4
  %a.0 = insertelement <4 x float> poison, float %a, i64 0
  %as = shufflevector <4 x float> %a.0, <4 x float> poison, <4 x i32> zeroinitializer
  %c.0 = insertelement <4 x float> poison, float %c, i64 0
  %cs = shufflevector <4 x float> %c.0, <4 x float> poison, <4 x i32> zeroinitializer
  %fused = call <4 x float> @llvm.wasm.relaxed.madd.v4f32(<4 x float> %as, <4 x float> %as, <4 x float> %cs)
  %one = extractelement <4 x float> %fused, i64 0
  %rounded = fcmp oeq float %one, 0.0
  ret i1 %rounded
}

declare <4 x float> @llvm.wasm.relaxed.madd.v4f32(<4 x float>, <4 x float>, <4 x float>)
"""


def lacks_instructions(target: Target) -> str:
    """`i1 nnc.lacks.instructions()`."""
    if target.relaxed:
        return _FUSES
    if target.cpu not in LEVELS:
        return _ALWAYS
    levels = list(LEVELS)[: list(LEVELS).index(target.cpu) + 1]
    one, seven, extended, saved = (sum(1 << bit for level in levels for bit in _NEEDED[level][k]) for k in range(4))
    lines = ["define internal i1 @nnc.lacks.instructions() #0 {", "one:"]
    lines += _answer("one", 1, 2, one)
    if saved:
        lines += ["  br i1 %one.lacks, label %lacks, label %seven", "seven:"]
        lines += _answer("seven", 7, 1, seven)
        lines += _answer("extended", 0x80000001 - (1 << 32), 2, extended)
        lines += [
            f'  %xcr0 = call {{ i32, i32 }} asm sideeffect "xgetbv", "={{ax}},={{dx}},{{cx}},{_CLOBBERED}"(i32 0)',
            "  %saved = extractvalue { i32, i32 } %xcr0, 0",
            f"  %saved.has = and i32 %saved, {saved}",
            f"  %saved.lacks = icmp ne i32 %saved.has, {saved}",
            "  %either = or i1 %seven.lacks, %extended.lacks",
            "  %any = or i1 %either, %saved.lacks",
            "  br i1 %any, label %lacks, label %has",
        ]
    else:
        lines += ["  br i1 %one.lacks, label %lacks, label %has"]
    lines += ["lacks:", "  ret i1 true", "has:", "  ret i1 false", "}", ""]
    return "\n".join(lines)


def _answer(name: str, leaf: int, register: int, wanted: int) -> list[str]:
    """Ask a leaf, and whether a wanted bit is missing in a register of the answer."""
    wanted -= (wanted >> 31) << 32
    return [
        f'  %{name}.answer = call {{ i32, i32, i32, i32 }} asm sideeffect "cpuid", "{_CPUID}"(i32 {leaf}, i32 0)',
        f"  %{name}.bits = extractvalue {{ i32, i32, i32, i32 }} %{name}.answer, {register}",
        f"  %{name}.has = and i32 %{name}.bits, {wanted}",
        f"  %{name}.lacks = icmp ne i32 %{name}.has, {wanted}",
    ]
