"""Targets that need no operating system: what `nnc build` makes code for.

What a processor lacks is written out where that gives the same bits; what is left are calls of the arithmetic that
every compiler for it brings (libgcc, compiler-rt), by name, as its users want to know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .target import LEVELS, Target

_ROUNDING = ("floor", "ceil", "trunc", "roundeven")
_INTRINSICS = (
    *(f"{name}.{dtype}" for name in ("fma", "sqrt", *_ROUNDING) for dtype in ("f32", "f64")),
    "half.f16",
    "any.bool",
    "masked.memory",
)


def _names(prefix: str, names: str, suffix: str = "") -> frozenset[str]:
    return frozenset(f"{prefix}{n}{suffix}" for n in names.split())


# Run-time ABI for the Arm Architecture, and "The GCC low-level runtime library" (GCC internals)
_ARM = _names("__aeabi_", "l2d l2f ul2d ul2f d2lz f2lz d2ulz f2ulz ldivmod uldivmod lmul")
_ARM_SMALL = _names("__aeabi_", "llsl llsr lasr idiv uidiv idivmod uidivmod") | _names("__", "clzsi2 clzdi2")
_ARMV7 = _ARM | _ARM_SMALL
_ARM_F64 = _names("__aeabi_", "d2f d2iz d2uiz dadd dsub drsub dmul ddiv f2d i2d ui2d") | _names(
    "__aeabi_dcmp", "eq ge gt le lt un"
)
_ARM_F32 = _names("__aeabi_", "f2iz f2uiz fadd fsub frsub fmul fdiv i2f ui2f") | _names(
    "__aeabi_fcmp", "eq ge gt le lt un"
)
_RISCV = _names("__", "divdi3 moddi3 udivdi3 umoddi3 muldi3 ashldi3 lshrdi3 ashrdi3 clzsi2 clzdi2") | _names(
    "__", "floatdisf floatdidf floatundisf floatundidf fixsfdi fixdfdi fixunssfdi fixunsdfdi"
)
_COMPARED = "eq ne ge gt le lt unord"
_RISCV_F64 = (
    _names("__", "add sub mul div", "df3")
    | _names("__", _COMPARED, "df2")
    | _names("__", "extendsfdf2 truncdfsf2 floatsidf floatunsidf fixdfsi fixunsdfsi")
)
_RISCV_F32 = (
    _names("__", "add sub mul div", "sf3")
    | _names("__", _COMPARED, "sf2")
    | _names("__", "floatsisf floatunsisf fixsfsi fixunssfsi")
)


def _alone(name: str, triple: str, cpu: str, features: str, width: Sequence[int], *lacks: str, **more: Any) -> Target:
    """`width`: bytes of a vector, registers of that; `lacks`: a dtype, of which it has no fused multiply-add, rounding
    and roots, or an intrinsic, of any dtype."""
    found = {i for i in _INTRINSICS if not {*lacks}.isdisjoint(i.split("."))}
    nbytes, registers = width
    return Target(name, triple, cpu, features, nbytes, registers, frozenset(found), **{"calls": frozenset(), **more})


def _cortex_m(name: str, architecture: str, *lacks: str, calls: frozenset[str], abi: str = "eabihf") -> Target:
    triple = f"thumb{architecture}-unknown-none-{abi}"
    return _alone(name, triple, name, "", (4, 32), *lacks, calls=_ARM | calls, position_independent=False)


def _riscv32(name: str, features: str, abi: str, *lacks: str, calls: frozenset[str]) -> Target:
    triple, cpu = "riscv32-unknown-none-elf", "generic-rv32"
    return _alone(
        name,
        triple,
        cpu,
        features,
        (4, 32),
        "half",
        *lacks,
        abi=abi,
        calls=_RISCV | calls,
        position_independent=False,
    )


def _wasm(name: str, features: str, *lacks: str, relaxed: bool = False) -> Target:
    features = f"+simd128,+sign-ext,+nontrapping-fptoint,+mutable-globals,+multivalue{features}"
    triple = "wasm32-unknown-unknown"
    return _alone(
        name,
        triple,
        "generic",
        features,
        (16, 16),
        "any",
        "half",
        "masked",
        *lacks,
        relaxed=relaxed,
        position_independent=False,
    )


ALONE = {
    t.name: t
    for t in (
        _alone("x86-64", "x86_64-unknown-none-elf", "x86-64", "", (16, 16), "fma", "half", "masked", *_ROUNDING),
        *(
            _alone(
                name,
                "x86_64-unknown-none-elf",
                name,
                "",
                (nbytes, registers),
                *(["fma", "half", "masked"] if lacks else []),
            )
            for name, (nbytes, registers, lacks) in LEVELS.items()
        ),
        _alone("aarch64", "aarch64-unknown-none-elf", "generic", "+neon", (16, 32), "masked"),
        # NEON flushes subnormals, whatever is set
        _alone("armv7-a", "armv7a-unknown-none-eabihf", "generic", "-neon,+vfp4", (4, 32), *_ROUNDING, calls=_ARMV7),
        _cortex_m("cortex-m0plus", "v6m", "f32", "f64", "half", calls=_ARM_SMALL | _ARM_F32 | _ARM_F64, abi="eabi"),
        _cortex_m("cortex-m4", "v7em", *_ROUNDING, "f64", calls=_ARM_F64),
        _cortex_m("cortex-m7", "v7em", calls=frozenset()),
        _cortex_m("cortex-m33", "v8m.main", "f64", calls=_ARM_F64),
        _alone("riscv64", "riscv64-unknown-none-elf", "generic-rv64", "+m,+a,+f,+d,+c", (8, 32), "half", abi="lp64d"),
        _riscv32("riscv32imafc", "+m,+a,+f,+c", "ilp32f", "f64", calls=_RISCV_F64),
        _riscv32("riscv32imac", "+m,+a,+c", "ilp32", "f32", "f64", calls=_RISCV_F64 | _RISCV_F32),
        _wasm("wasm32", "", "fma"),
        _wasm("wasm32-relaxed", ",+relaxed-simd", relaxed=True),
    )
}
