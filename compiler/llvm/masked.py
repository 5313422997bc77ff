"""Loads and stores of the lanes that are on, where a processor has no such instruction: one lane after the other.

In: what is to be done, the type of an element, how many. Out: the name of a function to call: LLVM's intrinsic, or one
of the module with the same parameters. LLVM itself would write out a branch for every lane wherever there is a tail,
and for WebAssembly fails an assertion of its own on some masks of 64 lanes (22.1).
"""

from __future__ import annotations

from .text import Externals, type_text


def function(externals: Externals, what: str, element: str, lanes: int, every: bool = False) -> str:
    """`load`, `store`, `gather` or `scatter`; a pointer, or one for each lane. Where `every` lane is on LLVM needs no
    branch."""
    vector, mask = type_text(element, lanes), f"<{lanes} x i1>"
    many = what in ("gather", "scatter")
    pointer = f"<{lanes} x ptr>" if many else "ptr"
    reads = what in ("load", "gather")
    parameters = (pointer, "i32", mask, vector) if reads else (vector, pointer, "i32", mask)
    result = vector if reads else "void"
    suffix = f"v{lanes}{element}"
    if every or externals.masks:
        name = f"@llvm.masked.{what}.{suffix}.{f'v{lanes}p0' if many else 'p0'}"
        externals.declares.add(f"declare {result} {name}({', '.join(parameters)})")
        return name
    name = f"@nnc.{what}.{suffix}"
    names = ("%at", "%align", "%mask", "%value") if reads else ("%value", "%at", "%align", "%mask")
    given = ", ".join(f"{t} {n}" for n, t in zip(names, parameters, strict=True))
    externals.helpers[f"nnc.{what}", element, lanes] = _text(name, given, result, element, lanes, many, reads)
    return name


def _text(name: str, given: str, result: str, element: str, lanes: int, many: bool, reads: bool) -> str:
    vector, one = type_text(element, lanes), type_text(element)
    pointers = f"""  %pointers = alloca <{lanes} x ptr>, align 16
  store <{lanes} x ptr> %at, ptr %pointers, align 16
"""
    there = """  %there.at = getelementptr ptr, ptr %pointers, i64 %k
  %there = load ptr, ptr %there.at"""
    if not many:
        there = f"  %there = getelementptr {one}, ptr %at, i64 %k"
    source, target = ("%there", "%here") if reads else ("%here", "%there")
    end = f"  %done.value = load {vector}, ptr %own, align 16\n  ret {vector} %done.value" if reads else "  ret void"
    return f"""define internal {result} {name}({given}) noinline #0 {{
entry:
  %on = alloca <{lanes} x i8>, align 16
  %own = alloca {vector}, align 16
{pointers if many else ""}  %bytes = zext <{lanes} x i1> %mask to <{lanes} x i8>
  store <{lanes} x i8> %bytes, ptr %on, align 16
  store {vector} %value, ptr %own, align 16
  br label %lane
lane:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %on.at = getelementptr i8, ptr %on, i64 %k
  %byte = load i8, ptr %on.at, align 1
  %is.on = icmp ne i8 %byte, 0
  br i1 %is.on, label %move, label %next
move:
  %here = getelementptr {one}, ptr %own, i64 %k
{there}
  %element = load {one}, ptr {source}, align {_ALIGNMENT[element]}
  store {one} %element, ptr {target}, align {_ALIGNMENT[element]}
  br label %next
next:
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, {lanes}
  br i1 %more, label %lane, label %done
done:
{end}
}}
"""


_ALIGNMENT = {"f32": 4, "f64": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8}
