"""Vector mathematics: the scalar functions that are long, as functions of the module, without libm.

In: a function's name, dtype and lane count. Out: an internal LLVM function, inlined where it is called unless that is
in many places. A scalar is one lane of the same code, so its bits are the same. No fast-math flags. What a function
promises (`ulp`) stands in its paragraph in `scalar`; tests/llvm/test_maths.py measures it over all magnitudes.
"""

from __future__ import annotations

from ..scalar import FUNCTIONS
from ..scalar.random import uniform
from .instructions import Instructions
from .text import Externals, Function, symbol, type_text

EACH = "random.each"  # `random` with a key for each lane
MAX_INLINED = 500  # instructions that inlining one function may add to a module


def name_of(fn: str, dtype: str, lanes: int) -> str:
    return f"nnc.{fn}.{dtype}" + (f"x{lanes}" if lanes > 1 else "")


def operands(i: Instructions, fn: str) -> tuple[str, ...]:
    """The types of a function's operands. `random` has one key for all lanes, `EACH` one for each."""
    if fn in ("random", EACH):
        return "i64" if fn == "random" else i.of("i64").type, i.of("i64").type
    return (i.type,) * len(FUNCTIONS[fn].operands)


def call(i: Instructions, fn: str, args: list[str]) -> str:
    """Call a vector function whose result is of `i`'s dtype, and note that the module needs it."""
    i.fn.externals.maths.add((fn, i.dtype, i.lanes))
    name = symbol(name_of(fn, i.dtype, i.lanes), "@")
    given = ", ".join(f"{t} {a}" for t, a in zip(operands(i, fn), args, strict=True))
    return i.pure(f"call {i.type} {name}({given})")


def definitions(externals: Externals, text: str) -> list[str]:
    """The functions that `text`, the module's kernels, calls, and what they call."""
    called = [_definition(*key, externals, text) for key in sorted(externals.maths)]
    return [*called, *(externals.helpers[key] for key in sorted(externals.helpers))]


def _definition(name: str, dtype: str, lanes: int, externals: Externals, text: str) -> str:
    """Inlined where that does not make the code much longer: it then costs LLVM seconds and gains little."""
    fn = Function(externals)
    i = Instructions(fn, dtype, lanes, 0)
    types = operands(i, name)
    args = [fn.name(a) for a in ("x", "y")[: len(types)]]
    parameters = ", ".join(f"{t} {a}" for t, a in zip(types, args, strict=True))
    rule = uniform if name == EACH else FUNCTIONS[name].llvm
    result = rule(i, *args)  # may start new blocks
    fn.block.end = f"ret {i.type} {result}"
    symbol_ = symbol(name_of(name, dtype, lanes), "@")
    copies = text.count(f"{symbol_}(") - 1
    how = "alwaysinline" if fn.size * copies <= MAX_INLINED else "noinline"
    return fn.text(f"define internal {type_text(dtype, lanes)} {symbol_}({parameters}) {how} #0")
