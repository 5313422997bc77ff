"""What a module's code has asked of its sizes, as conditions of the text: a trace took one of its branches.

PyTorch takes it that a free size is neither 0 nor 1: code that asks whether one is 1 is traced as if it were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..onnx.importing.refusals import Refused

_RELATIONS = {
    "StrictGreaterThan": ">", "GreaterThan": ">=", "StrictLessThan": "<", "LessThan": "<=", "Equality": "==",
    "Unequality": "!=", "And": "and", "Or": "or",
}  # fmt: skip
_ARITHMETIC = {"Add": "+", "Mul": "*", "Mod": "%", "PythonMod": "%", "FloorDiv": "//", "CleanDiv": "//"}


def guards(program: Any, sizes: Mapping[str, str]) -> list[str]:
    """The conditions, in the names of the text; `sizes` has them by symbol. Raises Refused."""
    environment = next((d.node.shape_env for n in program.graph.nodes if n.op == "placeholder" for d in _free(n)), None)
    if environment is None:
        return []
    found: dict[str, None] = {}
    for guard in environment.guards:
        asked = guard.expr.xreplace(environment.replacements)
        of_one = type(asked).__name__ == "Unequality" and asked.args[1] == 1
        if asked not in (True, False) and not of_one:
            found[_written(asked, sizes)] = None
    return list(found)


def _free(node: Any) -> list[Any]:
    return [d for d in getattr(node.meta.get("val"), "shape", ()) if not isinstance(d, int)]


def _written(e: Any, sizes: Mapping[str, str]) -> str:
    kind = type(e).__name__
    if e.is_Integer:
        return str(int(e))
    if e.is_Symbol and str(e) in sizes:
        return sizes[str(e)]
    if kind in _RELATIONS:
        return f" {_RELATIONS[kind]} ".join(_written(a, sizes) for a in e.args)
    if kind in _ARITHMETIC:
        return f"({f' {_ARITHMETIC[kind]} '.join(_written(a, sizes) for a in e.args)})"
    raise Refused(f"its code asks {e} of its sizes")
