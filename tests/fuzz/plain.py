"""What a random program means in plain Python and NumPy: a reference that shares nothing with the compiler.

The text of a generated program is nearly Python. A loop becomes `for`, what it collects a list; an index notation reads
its operands at arrays of indices. Programs with derivatives, draws or states are left to the other judgements.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Mapping
from math import erf as _erf
from typing import Any

import numpy as np
from scipy.special import digamma, erfinv, gammaln

BEYOND = re.compile(r"\b(grad|uniform|normal|bernoulli|state|local_response_norm)\b|until|^model", re.MULTILINE)

CONSTANT = re.compile(r"^const (\w+): (\w+)\[.*?\] = (.*)$", re.MULTILINE)


def evaluate(text: str, inputs: Mapping[str, np.ndarray]) -> list[Any] | None:
    """The results of `f`, or None for a program that this file does not understand."""
    if BEYOND.search(text):
        return None
    ports = [(n, m) for k, dims in _ports(text) for n, m in zip(dims, inputs[k].shape, strict=True)]
    named = {n: m for n, m in ports if n.isidentifier()}
    constants = {n: np.array(ast.literal_eval(v), NUMPY[d]) for n, d, v in CONSTANT.findall(text)}
    env: dict[str, Any] = {**NUMPY, **named, **constants, **inputs}
    code = _python(text[: text.index("\n}") + 2])
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        exec(compile(code, "<plain>", "exec"), env)
    result = env["result"]
    return list(result) if isinstance(result, tuple) else [result]


def _ports(text: str) -> list[tuple[str, list[str]]]:
    head = text[text.index("(") + 1 : text.index(") {")]
    found = re.findall(r"(\w+): \w+(?:\[([^\]]*)\])?", head)
    return [(name, [d.strip() for d in dims.split(",")] if dims else []) for name, dims in found]


# --- the text as Python ----------------------------------------------------------------------------------------------


def _python(text: str) -> ast.Module:
    lines: list[tuple[str, str | None, str]] = []  # indentation, what the line collects, the code
    collected: list[list[str]] = []
    for line in text.splitlines()[1:-1]:
        space, body = line[: len(line) - len(line.lstrip()) - 4], line.strip()
        if loop := re.fullmatch(r"scan (\w+) in (.+?)\.\.(.+) \{", body):
            collected.append([])
            lines.append((space, None, f"for {loop[1]} in range({loop[2]}, {loop[3]}):"))
            continue
        if body == "}":
            for name in collected.pop():
                lines.append((space, None, f"{name} = whole({name})"))
            continue
        if repeat := re.fullmatch(r"repeat (\d+) \{ (.*) \}", body):
            lines.append((space, None, f"for _ in range({repeat[1]}): {repeat[2]}"))
        elif item := re.fullmatch(r"(y\d+)\[(t\d+)\] = (.*)", body):
            collected[-1].append(item[1])
            lines.append((space, item[1], f"{item[1]}.append({item[3]})"))
        elif index := re.fullmatch(r"(\w+)\[([^\]]*)\] = (.*)", body):
            lines.append((space, None, f"{index[1]} = {_notation(index[2], index[3])}"))
        else:
            lines.append((space, None, body.replace("return ", "result = ")))
    return _Operators().visit(ast.parse(_text(lines)))


def _text(lines: list[tuple[str, str | None, str]]) -> str:
    """With each list made empty right before its own loop."""
    out: list[str] = []
    for k, (space, _, code) in enumerate(lines):
        if code.startswith("for t"):
            for inner_space, name, _ in lines[k + 1 :]:
                if len(inner_space) <= len(space):
                    break
                if name is not None and len(inner_space) == len(space) + 4:
                    out.append(f"{space}{name} = []")
        out.append(space + code)
    return re.sub(r"\^", "**", "\n".join(out))


def _notation(target: str, value: str) -> str:
    """`sum[c](..)` and pointwise notation as a call of `notation`."""
    how, bound, ranges = "", [], {}
    if reduction := re.fullmatch(r"(sum|mean|max|min|prod)\[([^\]]*)\]\((.*)\)", value):
        how, value = reduction[1], reduction[3]
        for binder in reduction[2].split(", "):
            name, _, over = binder.partition(" in ")
            bound.append(name)
            if over:
                ranges[name] = int(over.split("..")[1])
    left = [item.partition(" in ") for item in target.split(", ")]
    ranges |= {name: int(over.split("..")[1]) for name, _, over in left if over}
    value = value.replace("^", "**")
    return f"notation({[name for name, _, _ in left]!r}, {bound!r}, {ranges!r}, {how!r}, {value!r}, {{**globals()}})"


class _Operators(ast.NodeTransformer):
    """`and`, `or` and `not` of arrays; `true` and `false`."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        name = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
        left, *rest = node.values
        for right in rest:
            left = ast.Call(ast.Name(name, ast.Load()), [left, right], [])
        return ast.fix_missing_locations(ast.copy_location(left, node))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            call = ast.Call(ast.Name("logical_not", ast.Load()), [node.operand], [])
            return ast.fix_missing_locations(ast.copy_location(call, node))
        return node


def notation(
    target: list[str], bound: list[str], ranges: dict[str, int], how: str, body: str, env: dict[str, Any]
) -> np.ndarray:
    """Every index as an array along an axis of its own."""
    names = [*target, *bound]
    size = dict(ranges)
    parts = [(env[k], [e.strip() for e in at.split(",")]) for k, at in re.findall(r"(\w+)\[([^\]]*)\]", body)]
    for array, at in parts:
        size |= {e: n for e, n in zip(at, array.shape, strict=True) if e in names and e not in size}
    for array, at in parts:
        for e, n in zip(at, array.shape, strict=True):
            free = [x for x in re.findall(r"[a-z]\w*", e) if x not in size]
            if free:
                (x,) = free
                others = [[(y, 0), (y, size[y] - 1)] for y in re.findall(r"[a-z]\w*", e) if y != x]
                ends = [dict(end) for end in itertools.product(*others)]
                least, most = (min, max) if all(0 <= k for end in ends for k in end.values()) else (max, min)
                count = 0
                while least(at := [eval(e, env, {**end, x: count}) for end in ends]) >= 0 and most(at) < n:
                    count += 1
                size[x] = count
    axes = range(len(names))
    mesh = {x: np.expand_dims(np.arange(size[x]), [j for j in axes if j != k]) for k, x in enumerate(names)}
    code = compile(_Operators().visit(ast.parse(body, mode="eval")), "<plain>", "eval")
    value = np.array(np.broadcast_to(eval(code, {**env, **mesh}), [size[x] for x in names]))
    return getattr(np, how)(value, axis=tuple(range(len(target), len(names)))) if how else value


# --- functions -------------------------------------------------------------------------------------------------------


def reducer(of: Any) -> Any:
    def reduce(x: Any, axis: Any = None, keep: bool = False) -> Any:
        axis = tuple(axis) if isinstance(axis, list) else axis
        x = np.asarray(x)
        return of(x, axis=axis, keepdims=keep).astype(x.dtype if x.dtype != bool else bool)

    return reduce


def whole(rows: list[Any]) -> np.ndarray:
    if not rows:
        raise ValueError("zero-size: no turn tells what is collected")
    return np.stack(rows)


def logsumexp(x: Any, axis: int = -1) -> Any:
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    return np.log(np.sum(np.exp(x - top), axis=axis)) + np.squeeze(top, axis)


def argsort(x: np.ndarray, axis: int, descending: bool = False) -> np.ndarray:
    """NaN is above every number; of equals the first comes first."""
    keys = (-x, ~np.isnan(x)) if descending else (x, np.isnan(x))
    return np.lexsort(keys, axis=axis).astype(np.int32)


def sort(x: np.ndarray, axis: int, descending: bool = False) -> np.ndarray:
    return np.take_along_axis(x, argsort(x, axis, descending), axis)


def top_k(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    at = argsort(x, -1, True)[..., :k]
    return np.take_along_axis(x, at, -1), at


def scatter(x: np.ndarray, index: np.ndarray, n: int, by: str = "sum") -> np.ndarray:
    folds = {"sum": (np.add, 0.0), "mul": (np.multiply, 1.0), "max": (np.maximum, -np.inf), "min": (np.minimum, np.inf)}
    into, start = folds[by]
    out = np.full((n, *x.shape[1:]), start)
    into.at(out, index, x)
    return out


def sides_of(n: int, window: int, stride: int, pad: Any) -> tuple[int, int]:
    if pad == "same":
        lacking = max((-(-n // stride) - 1) * stride + window - n, 0)
        return lacking // 2, lacking - lacking // 2
    return (0, 0) if pad == "valid" else (pad, pad)


def windows(x: np.ndarray, kernel: list[int], stride: int, pad: Any, dilation: int, value: float):
    """Each window's place in the result, and its elements [B, C, *kernel]."""
    spans = [(k - 1) * dilation + 1 for k in kernel]
    sides = [sides_of(n, s, stride, pad) for n, s in zip(x.shape[2:], spans, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *sides], constant_values=value)
    counts = [(n - s) // stride + 1 for n, s in zip(x.shape[2:], spans, strict=True)]
    for at in itertools.product(*map(range, counts)):
        part = tuple(slice(i * stride, i * stride + s, dilation) for i, s in zip(at, spans, strict=True))
        yield at, counts, x[(slice(None), slice(None), *part)]


def slide(x: Any, w: Any, stride: int, pad: Any, dilation: int, groups: int, exact: bool) -> Any:
    out = None
    filters, per = w.shape[0] // groups, w.shape[1]
    for at, counts, part in windows(x, list(w.shape[2:]), stride, pad, dilation, 0.0):
        out = np.zeros((x.shape[0], w.shape[0], *counts)) if out is None else out
        for k in range(w.shape[0]):
            g = k // filters
            products = part[:, g * per : (g + 1) * per] * w[k]
            out[(slice(None), k, *at)] = products.sum(axis=tuple(range(1, x.ndim)))
    return out


def max_pool(x: Any, kernel: int, stride: int, pad: Any, dilation: int) -> Any:
    return folded(x, kernel, stride, pad, -np.inf, np.max, dilation)


def avg_pool(x: Any, kernel: int, stride: int, pad: Any, count_pad: bool = False) -> Any:
    total, ones = folded(x, kernel, stride, pad, 0, np.sum), np.ones(x.shape)
    return total / folded(ones, kernel, stride, pad, 1 if count_pad else 0, np.sum)


def folded(x: Any, kernel: int, stride: int, pad: Any, around: float, how: Any, dilation: int = 1) -> Any:
    out = None
    for at, counts, part in windows(x, [kernel] * (x.ndim - 2), stride, pad, dilation, around):
        out = np.zeros((*x.shape[:2], *counts)) if out is None else out
        out[(..., *at)] = how(part, axis=tuple(range(2, x.ndim)))
    return out


def adaptive(x: Any, sizes: list[int], how: Any) -> Any:
    out = np.zeros((*x.shape[:2], *sizes))
    for at in np.ndindex(*sizes):
        parts = [slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip(at, x.shape[2:], sizes, strict=True)]
        out[(..., *at)] = how(x[(..., *parts)], axis=tuple(range(2, x.ndim)))
    return out


def cast(x: Any, dtype: Any) -> Any:
    """To whole numbers a float saturates, and NaN is 0."""
    x = np.asarray(x)
    if x.dtype.kind != "f" or np.dtype(dtype).kind != "i":
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    whole = np.where(np.abs(x) < limits.max, x, 0).astype(dtype)
    return np.where(x >= limits.max, limits.max, np.where(x <= limits.min, limits.min, whole)).astype(dtype)


def softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def along(of: Any) -> Any:
    return lambda x, axis: of(x, axis=axis)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def elu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))


def softplus(x: Any) -> Any:
    return np.logaddexp(x, 0)


erf = np.vectorize(_erf, otypes=[float])
NUMPY: dict[str, Any] = {
    **{k: getattr(np, k) for k in """exp log log2 log1p expm1 sqrt sin cos tan tanh sinh cosh floor ceil sign maximum
        minimum where isfinite logical_and logical_or logical_not transpose squeeze abs flip""".split()},
    "__builtins__": {"range": range, "globals": globals}, "true": True, "false": False, "notation": notation,
    "f32": np.float64, "i32": np.int32, "i64": np.int64, "round": np.rint, "rsqrt": lambda x: 1 / np.sqrt(x),
    "atan": np.arctan, "asin": np.arcsin, "acos": np.arccos, "atan2": np.arctan2,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "erfc": lambda x: 1 - erf(x),
    "lgamma": gammaln, "digamma": digamma, "erfinv": erfinv,
    "sigmoid": sigmoid, "logistic": sigmoid, "silu": lambda x: x * sigmoid(x), "softplus": softplus, "erf": erf,
    "gelu": lambda x: 0.5 * x * (1 + erf(x * np.sqrt(0.5))), "mish": lambda x: x * np.tanh(softplus(x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "softsign": lambda x: x / (1 + np.abs(x)), "relu": lambda x: np.maximum(x, 0), "elu": elu,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "selu": lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772),
    "hard_tanh": lambda x: np.clip(x, -1, 1), "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "clip": np.clip, "log_sigmoid": lambda x: -softplus(-x), "stop_grad": lambda x: x, "checkpoint": lambda x: x,
    "sum": reducer(np.sum), "mean": reducer(np.mean), "max": reducer(np.max), "min": reducer(np.min),
    "prod": reducer(np.prod), "variance": reducer(np.var), "norm": lambda x: np.sqrt(np.sum(np.square(x))),
    "any": along(np.any), "all": along(np.all), "argmax": along(np.argmax), "argmin": along(np.argmin),
    "cumsum": along(np.cumsum), "cumprod": along(np.cumprod), "sort": sort, "argsort": argsort,
    "quantile": lambda x, q, axis: np.quantile(x, q, axis=axis), "softmax": softmax, "logsumexp": logsumexp,
    "log_softmax": lambda x, axis: np.log(softmax(x, axis)), "top_k": top_k, "scatter": scatter,
    "cast": cast, "expand": np.expand_dims, "reshape": np.reshape,
    "pad": lambda x, sides, value=0: np.pad(x, sides, constant_values=value), "concat": along(np.concatenate),
    "stack": along(np.stack), "split": lambda x, n, axis: np.split(x, n, axis=axis),
    "broadcast": lambda x, shape: np.broadcast_to(x, shape).copy(),
    "eye": np.eye, "solve": np.linalg.solve, "cholesky": np.linalg.cholesky,
    "gather": lambda x, index, axis=0: np.take(x, index, axis=axis),
    "take": lambda x, index, axis: np.take_along_axis(x, np.expand_dims(index, axis), axis).squeeze(axis),
    "one_hot": lambda k, n: (np.expand_dims(k, -1) == np.arange(n)).astype(np.float64),
   
    "require": lambda condition, message: None,
    "iota": lambda n: np.arange(n, dtype=np.int32), "whole": whole,
    "slide": slide, "max_pool": max_pool, "avg_pool": avg_pool,
    "adaptive_max_pool": lambda x, sizes: adaptive(x, sizes, np.max),
    "adaptive_avg_pool": lambda x, sizes: adaptive(x, sizes, np.mean),
    "extend": lambda x, sides, by: np.pad(x, sides, mode={"replicate": "edge", "circular": "wrap"}.get(by, by)),
}  # fmt: skip
