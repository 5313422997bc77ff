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


def lacks_instructions(target: Target) -> str:
    """`i1 nnc.lacks.instructions()`."""
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
