"""The variables of a program: declared as elaboration meets them, read one by one or in groups, and training's own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ...dsl import ast
from ...dsl.errors import error
from ...dsl.source import Span
from ..graph.ops.random import site_key
from ..types.sizes import symbol
from ..types.stacks import is_stack, members
from ..types.tensors import FLOATS, TensorType
from .context import Context
from .frames import NotRolled
from .home import AVERAGE, Declared
from .limits import check_type
from .operations import binary
from .scope import Scope
from .shapes import broadcast_to
from .values import Group, Tensor

TURN = 0x2545F4914F6CDD1D  # odd and large: the keys of one step's turns are far from the next step's


def declare(cx: Context, d: Declared) -> None:
    """Make a variable known. One that is known must be of the same type; a parameter that training averages gets its
    average, which inference reads from now on, and which the step declares when it keeps it."""
    check_type(d.type, d.asked or d.span)
    program = cx.program
    known = program.variables.get(d.path)
    if known is None:
        _check_stored_once(cx, d.path)
        program.variables[d.path] = d
        train = program.train
        if (
            program.averaging is not None
            and train is not None
            and d.role in ("weight", "bias")
            and d.path.startswith(f"{train.model}.")
        ):
            path = AVERAGE + d.path
            program.averages[d.path] = Declared(path, d.type, "average", 0, False, None, program.averaging)
    elif known.type != d.type:
        raise error(
            "E0301",
            f"`{d.path}` is {d.type} here, but {known.type} elsewhere",
            d.span,
            help="a shared layer has one set of parameters, so its inputs must have one size",
        )


def _check_stored_once(cx: Context, path: str) -> None:
    """A variable is stored by itself or in one stack."""
    program = cx.program
    if any(member in program.variables or member in program.stacks for member in members(path)):
        raise NotRolled(path)
    if is_stack(path):
        program.stacks.update(dict.fromkeys(members(path), path))


GROUPS = {"params": ("weight", "bias"), "weights": ("weight",), "biases": ("bias",), "states": ("state",)}  # roles


def group(cx: Context, roots: Sequence[str], roles: tuple[str, ...]) -> Group:
    """The variables that have one of these roles, of models and parts of models; its root is what these are all in."""
    cx.grouped = True
    paths: dict[str, None] = {}
    for root in roots:
        cx.program.discover(root.split(".")[0])
        paths |= {p: None for p, d in cx.program.variables.items() if d.role in roles and _is_in(p, f"{root}.", cx)}
    steps = zip(*(root.split(".") for root in roots), strict=False)
    within = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, steps)]
    return Group({p: cx.variable(p) for p in paths}, ".".join(within))


def _is_in(path: str, root: str, cx: Context) -> bool:
    """Whether what is stored at a path begins with the root's."""
    if not is_stack(path):
        return path.startswith(root)
    inside = [member.startswith(root) for member in members(path)]
    if any(inside) and (cx.frames or not all(inside)):
        raise NotRolled(path)
    return inside[0]


# --- what training keeps of its own ----------------------------------------------------------------------------------


def training_state(cx: Context, path: str) -> Tensor:
    """A whole number that training counts in."""
    if path not in cx.program.variables:
        declare(cx, Declared(path, TensorType("i64"), "train", 0, False, None, None))
    return cx.variable(path)


def step_names(cx: Context) -> dict[str, Tensor]:
    """`t` (from 1), `epoch` (from 0) and `steps` as floats. `t` and `steps` are the optimiser's: several batches
    are one step where gradients accumulate."""
    every = cx.program.spec.accumulate if cx.program.spec is not None else 1
    names = {}
    for name in ("t", "epoch", "steps"):
        value = training_state(cx, f"train/{name}")
        if every > 1 and name != "epoch":
            value = cx.emit("floordiv", value, cx.constant(every, "i64"), span=None)
        if name == "t":
            value = cx.emit("add", value, cx.constant(1, "i64"), span=None)
        names[name] = cx.emit("cast", value, span=None, dtype=cx.real)
    return names


def step_key(cx: Context) -> Tensor:
    """The key of this step's random draws: seed * 2^32 + step."""
    if cx.key is None and cx.program.complete and "train/seed" not in cx.program.variables:
        cx.key = cx.constant(0, "i64")  # a function or a test: there is no step to draw for
    if cx.key is None:
        seed, t = training_state(cx, "train/seed"), training_state(cx, "train/t")
        high = cx.emit("mul", seed, cx.constant(2**32, "i64"), span=None)
        cx.key = cx.emit("add", high, t, span=None)
    return cx.key


def draw_key(cx: Context) -> tuple[Tensor, int]:
    """The key of a random draw here and its site: the key is that of the step, and within scans of the turn. Equal
    turns that are written as one have sites of their own, which are in the key then."""
    sites = cx.draw_sites()
    with cx.around(0):
        key = step_key(cx)
    for frame in (f for f in cx.frames if f.turn is None):
        turn = cx.emit("size", span=None, size=symbol(frame.index) + 1, dtype="i64")
        far = cx.emit("mul", key, cx.constant(TURN, "i64"), span=None)
        key = cx.emit("add", far, turn, span=None)
    if cx.turn is None:
        return key, sites[0]
    with cx.around(0):
        keys = tuple(map(site_key, sites))
        table = cx.emit("constant", span=None, values=keys, type=TensorType("i64", (len(keys),)))
    return cx.emit("add", key, cx.of_turn(table), span=None), 0


def meet(cx: Context, x: Tensor, fold: str, span: Span | None) -> Tensor:
    """The mean, or sum, over the shards of a batch; where it is not cut, the value itself."""
    return cx.emit("across", x, span=span, fold=fold) if cx.shards else x


def normalize(cx: Context, d: ast.Layer, scope: Scope) -> None:
    """(x - mean) / scale for the float inputs of the trained model, where its train block asks for it."""
    spec, train = cx.program.spec, cx.program.train
    if spec is None or spec.normalize is None or train is None or d.name != train.model:
        return
    for p in d.parameters:
        x = scope.names[p.name]
        if not (isinstance(x, Tensor) and x.dtype in FLOATS and x.rank >= 2):
            continue
        axes = x.shape[1:] if x.rank == 2 else (x.shape[1], *[1] * (x.rank - 2))
        shape = () if spec.normalize == "standard_all" else axes
        if not all(isinstance(n, int) for n in shape):
            raise error("E0305", f"`normalize` needs the sizes of `{p.name}`, but it is {x.type}", p.span)
        for name, start in (("mean", 0), ("scale", 1)):
            path = f"normalize/{p.name}/{name}"
            declare(cx, Declared(path, TensorType(x.dtype, shape), "normalize", start, False, None, p.span))
            operand = cx.variable(path)
            if len(shape) == x.rank - 1:
                operand = broadcast_to(cx, operand, x.shape, p.span)
            x = binary(cx, "-" if name == "mean" else "/", x, operand, p.span, (p.span, p.span))
        scope.bind(p.name, x, p.span)
