"""Where instructions are from: debug locations whose lines are those of the loops as text.

In: functions and lines. Out: the metadata of a module. LLVM takes locations along through its passes to the assembly,
where directives say them; no instruction is another for them. See "Source Level Debugging with LLVM" (llvm.org).
"""

from __future__ import annotations

from ..loops.ir import For, If, Kernel, Stmt

_HEAD = """
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!1}
!0 = distinct !DICompileUnit(language: DW_LANG_C99, file: !2, emissionKind: DebugDirectivesOnly)
!1 = !{i32 2, !"Debug Info Version", i32 3}
!2 = !DIFile(filename: "loops", directory: "")
!3 = !DISubroutineType(types: !{})
"""


class Located:
    """The locations of a module, each once, by the number of its metadata."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._known: dict[tuple[int, int], int] = {}

    def function(self) -> int:
        """A function in which locations may be."""
        self._lines.append(
            'distinct !DISubprogram(name: "k", file: !2, type: !3, unit: !0, spFlags: DISPFlagDefinition)'
        )
        return len(self._lines) + 3

    def at(self, function: int, line: int) -> int:
        """A line as a location in a function."""
        if (function, line) not in self._known:
            self._lines.append(f"!DILocation(line: {line}, scope: !{function})")
            self._known[function, line] = len(self._lines) + 3
        return self._known[function, line]

    def text(self) -> str:
        """The metadata."""
        return _HEAD + "".join(f"!{k + 4} = {line}\n" for k, line in enumerate(self._lines))


def lines(kernel: Kernel) -> dict[int, int]:
    """By the id of each statement of a kernel its line in the text of that, from 1."""
    found: dict[int, int] = {}
    last = len(kernel.note.splitlines()) + 1

    def number(stmts: tuple[Stmt, ...]) -> None:
        nonlocal last
        for s in stmts:
            last += 1
            found[id(s)] = last
            if isinstance(s, For | If):
                number(s.body)
                last += 1  # its brace

    number(kernel.body)
    return found
