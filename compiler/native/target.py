"""What code is made for: the widest vectors of a processor and how many registers hold them."""

from __future__ import annotations

from ...dsl.record import dataclass

THREADS = frozenset({"pthread_create", "pthread_join", "syscall"})
MASKED = frozenset({"masked.memory"})
FUSED = frozenset({"fma.f32", "fma.f64"})
HALF = frozenset({"half.f16"})
LEVELS = {  # bytes of a vector, registers for them, intrinsics that are no instruction
    "x86-64-v2": (16, 16, FUSED | HALF | MASKED),
    "x86-64-v3": (32, 16, frozenset[str]()),
    "x86-64-v4": (64, 32, frozenset[str]()),
}
REQUIRED = {  # of each level, what its own instructions need beyond the one before
    "x86-64-v2": frozenset({"sse4.2", "ssse3", "popcnt", "cx16"}),
    "x86-64-v3": frozenset({"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}),
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}
# Processors with one unit for vectors of 64 bytes, or two of half of it.
SINGLE = frozenset({"znver4", "cannonlake", "icelake-client", "rocketlake", "tigerlake"})
TARGETS = ("native", *LEVELS)


@dataclass(frozen=True, slots=True)
class Target:
    """What code is made for. `vector_bytes` and `registers` describe the widest vector registers; what it `lacks`, by
    name and dtype, is written out (`llvm.emulate`), with the same bits. `calls` are the functions that code may need
    beside its own."""

    name: str
    triple: str
    cpu: str
    features: str  # "+avx2,-avx512f,..."; empty: what the cpu name implies
    vector_bytes: int
    registers: int
    lacks: frozenset[str] = frozenset()
    calls: frozenset[str] = THREADS
    abi: str = ""  # where the triple leaves it open
    position_independent: bool = True
    units: int = 2  # that multiply and add such vectors, each one in a cycle
    relaxed: bool = False  # WebAssembly's relaxed multiply-add, which is fused where the engine has that

    @property
    def has_scale(self) -> bool:
        """Whether it multiplies by powers of two in one rounding: an instruction of AVX-512."""
        return self.vector_bytes == 64

    @property
    def has_indexed(self) -> bool:
        """Whether a load adds a base, a scaled index and a number to where it reads, and registers are many enough for
        what is loaded early: with 16 of them LLVM keeps some of a tile on the stack."""
        return self.triple.startswith("x86_64") and self.registers >= 32

    @property
    def pointer_bits(self) -> int:
        return 64 if self.triple.split("-")[0] in ("x86_64", "aarch64", "riscv64") else 32

    @property
    def key(self) -> str:
        """What distinguishes objects made for it from others."""
        return f"{self.triple} {self.cpu} {self.features}"


def level(name: str, triple: str = "x86_64-unknown-linux-gnu") -> Target:
    """One of LEVELS, whether this machine has it or not: for code that need not run here."""
    return Target(name, triple, name, "", *LEVELS[name])
