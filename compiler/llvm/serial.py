"""Lanes as turns of a loop: for processors without vectors, where sixteen copies of the code are only longer.

In: a vector loop. Out: whether its lanes may take turns, each going through the body before the next begins. A vector
loop does each statement for all lanes first; that is the same where no lane reads what another one writes, and no two
statements add to one place in the order in which lanes come.
"""

from __future__ import annotations

from ..loops.ir import Apply, Const, For, Let, Load, Reduce, Register, Store, Var, expressions, parts, walk


def independent(loop: For) -> bool:
    """Whether the bits are the same if lanes take turns."""
    changing = {loop.var}  # names that need not be the same in all lanes, or throughout the loop
    stores: list[Store] = []
    loads: list[Load] = []
    folded: list[str] = []  # buffers with one result for all lanes
    scattered: list[str] = []  # and those to which lanes add where they like
    for s in walk(loop.body):
        loads += [e for x in expressions(s) for e in parts(x) if isinstance(e, Load)]
        match s:
            case Register():
                return False
            case Let(name, _) | For(name):
                changing.add(name)
            case Store():
                stores.append(s)
            case Reduce(buffer, index, _, value):
                same = all(
                    isinstance(e, Const | Apply) or (isinstance(e, Var) and e.name not in changing)
                    for e in parts(index)
                )
                if same and value.dtype == "bool":  # lanes of bools lie side by side in bits
                    return False
                (folded if same else scattered).append(buffer)
    touched = {e.buffer for e in loads} | {s.buffer for s in stores}
    if touched & {*folded, *scattered} or {*folded} & {*scattered} or len({*scattered}) < len(scattered):
        return False
    places = {(s.buffer, s.index) for s in stores} | {(e.buffer, e.index) for e in loads}
    return all(sum(buffer == s.buffer for buffer, _ in places) == 1 for s in stores)
