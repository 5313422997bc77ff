"""The names the compiler knows: primitives, and short compositions of them. Everything else is `.nn` source in
`dsl/std`. Each builtin is a function of (context, arguments)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...scalar import FUNCTIONS
from ...types.tensors import DTYPES
from ..values import REQUIRED, Builtin
from ..variables import GROUPS
from . import elementwise, facts, layout, reductions, sorting


def _builtin(name: str, call: Callable[..., Any], *parameters: Any) -> Builtin:
    return Builtin(name, tuple(p if isinstance(p, tuple) else (p, REQUIRED) for p in parameters), call)


def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = {**{d: d for d in DTYPES}, "inf": math.inf, "nan": math.nan}
    entries = [
        *(elementwise.make_function(f) for f in FUNCTIONS.values() if f.number is not None),
        *(reductions.make_reduction(n) for n in reductions.REDUCE),
        *(reductions.make_arg(n) for n in ("argmax", "argmin")),
        _builtin("stop_grad", facts.call_stop_grad, "x"),
        _builtin("checkpoint", facts.call_checkpoint, "x", ("given", ())),
        _builtin("across", facts.call_across, "x"),
        *(facts.make_group(name, roles) for name, roles in GROUPS.items()),
        _builtin("isfinite", elementwise.call_isfinite, "x"),
        _builtin("clip", elementwise.call_clip, "x", "low", "high"),
        _builtin("where", elementwise.call_where, "c", "a", "b"),
        _builtin("cast", elementwise.call_cast, "x", "dtype"),
        _builtin("reshape", layout.call_reshape, "x", "shape"),
        _builtin("flatten", layout.call_flatten, "x"),
        _builtin("transpose", layout.call_transpose, "x", ("order", None)),
        _builtin("concat", layout.call_concat, "parts", ("axis", 0)),
        _builtin("stack", layout.call_stack, "parts", ("axis", 0)),
        _builtin("split", layout.call_split, "x", "parts", ("axis", -1)),
        _builtin("expand", layout.call_expand, "x", "axis"),
        _builtin("squeeze", layout.call_squeeze, "x", ("axis", None)),
        _builtin("broadcast", layout.call_broadcast, "x", "shape"),
        _builtin("pad", layout.call_pad, "x", "widths", ("value", 0)),
        _builtin("flip", layout.call_flip, "x", ("axis", None)),
        _builtin("gather", layout.call_gather, "x", "index", ("axis", 0)),
        _builtin("scatter", layout.call_scatter, "x", "index", "n", ("by", "sum")),
        _builtin("take", layout.call_take, "x", "index", ("axis", -1)),
        _builtin("one_hot", layout.call_one_hot, "label", "classes"),
        _builtin("iota", layout.call_iota, "n"),
        _builtin("eye", layout.call_eye, "n"),
        _builtin("size", facts.call_size, "x", ("axis", None)),
        _builtin("shape", facts.call_shape, "x"),
        _builtin("rank", lambda cx, a: len(facts.call_shape(cx, a)), "x"),
        _builtin("count", facts.call_count_of, "x"),
        _builtin("cumsum", sorting.call_cumsum, "x", ("axis", -1)),
        _builtin("cumprod", sorting.call_cumprod, "x", ("axis", -1)),
        _builtin("sort", sorting.call_sort, "x", ("axis", -1), ("descending", False)),
        _builtin("argsort", sorting.call_argsort, "x", ("axis", -1), ("descending", False)),
        _builtin("top_k", sorting.call_top_k, "x", "k"),
        _builtin("file", facts.call_file, "path", ("array", None)),
        _builtin("known", lambda cx, a: isinstance(a.size, int | float | bool | str), "size"),
        _builtin("require", facts.call_require, "condition", "message", ("numbers", ())),
        _builtin("warn", facts.call_warn, "condition", "message", ("numbers", ())),
        _builtin("macs", facts.call_macs, "model"),
        _builtin("grad", facts.call_grad, "y", "x"),
        _builtin("straight_through", facts.call_straight_through, "hard", "soft"),
        _builtin("uniform", facts.call_uniform, ("lo", 0), ("hi", 1), ("shape", None), ("key", None)),
        _builtin("normal", facts.call_normal, ("mean", 0), ("std", 1), ("shape", None), ("key", None)),
        _builtin("bernoulli", facts.call_bernoulli, ("p", 0.5), ("shape", None), ("key", None)),
    ]
    table |= {b.name: b for b in entries}
    return table


BUILTINS: Mapping[str, Any] = _table()
