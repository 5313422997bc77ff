"""What a step of training means, read from the text of a random program: it shares nothing with the compiler.

A parameter that plain gradient descent moves must have gone down the slope of its own loss, which differences tell;
one that nobody moves stays; a group that is assigned has what its line says, of the values behind the step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

LOSS = re.compile(r"minimize (\w+) = (.*) over (.*)$", re.MULTILINE)
OVER = re.compile(r"((?:params|weights|biases)\(.*?\)) with (\w+)\(([^)]*)\)")
ASSIGNED = re.compile(r"^    ((?:params|weights|biases)\((?:.*?)\)) := (.*)$", re.MULTILINE)
STEEP = 1e-2  # how far the two sides of a difference may be apart before it tells nothing

Values = Mapping[str, np.ndarray]


def wrong(
    text: str, roles: Mapping[str, str], old: Values, new: Values, loss: Callable[[str, Values], float]
) -> str | None:
    """What is not as the text says, or None. `roles` are those of all parameters, `new` has what the step changes, and
    `loss` tells a loss by its name for other parameters."""
    assigned = [(_members(m[1], roles), m[1], m[2]) for m in ASSIGNED.finditer(text)]
    behind = {path for members, _, _ in assigned for path in members}
    moved: set[str] = set()
    for name, value, over in LOSS.findall(text):
        for group, optimizer, arguments in OVER.findall(over):
            members = _members(group, roles)
            moved |= set(members)
            if optimizer == "SGD" and "stop_grad" not in value and not behind & set(members):
                rate = float(arguments.split("=")[-1])
                slopes = {p: (old[p] - new.get(p, old[p])) / rate for p in members}
                if (found := _off_slope(name, slopes, old, loss)) is not None:
                    return f"{name} over {group}: {found}"
    if moved:
        for path in set(roles) - moved - behind:
            if path in new and new[path].tobytes() != old[path].tobytes():
                return f"{path} has moved, which nothing trains"
    now = {**old, **new}
    for members, group, value in assigned:
        for path in members:
            own = {
                g: now[path if g == group else path.replace("Slow", "M", 1)]
                for g in (group, group.replace("Slow", "M"))
            }
            before = {**own, group: old[path]}  # a group is assigned once
            wanted = eval(_with_names(value, own), {n: before[g] for n, g in zip("ab", own, strict=True)})
            if not np.allclose(new[path], wanted, rtol=1e-9, atol=1e-12):
                return f"{path} is not {value}"
    return None


def _with_names(value: str, groups: Mapping[str, np.ndarray]) -> str:
    for name, group in zip("ab", groups, strict=True):
        value = value.replace(group, name)
    return value


def _members(group: str, roles: Mapping[str, str]) -> list[str]:
    """The paths of a group such as `weights([M.a, M.c])`."""
    kind, inside = group[:-1].split("(")
    of = [name.strip() for name in inside.strip("[]").split(",")]
    wanted = {"params": ("weight", "bias"), "weights": ("weight",), "biases": ("bias",)}[kind]
    return [p for p, role in roles.items() if role in wanted and any(p.startswith(f"{name}.") for name in of)]


def _off_slope(name: str, slopes: Values, old: Values, loss: Callable[[str, Values], float]) -> str | None:
    """Whether the slopes are not those of a loss along a random direction, where it is smooth there."""
    rng = np.random.default_rng(5)
    along = {p: rng.normal(size=v.shape) for p, v in slopes.items()}

    def at(h: float) -> float:
        return loss(name, {**old, **{p: old[p] + h * d for p, d in along.items()}})

    h, middle = 1e-5, at(0.0)
    ahead, behind = (at(h) - middle) / h, (middle - at(-h)) / h
    central = (ahead + behind) / 2
    slope = sum(float(np.sum(v * along[p])) for p, v in slopes.items())
    scale = 1 + abs(central) + sum(float(np.sum(np.abs(v * along[p]))) for p, v in slopes.items())
    if abs(ahead - behind) > STEEP * (1 + abs(central)) or not np.isfinite([slope, central]).all():
        return None
    if abs(slope - central) > 1e-4 * scale:
        return f"the slope is {slope:.12g} by the step, {central:.12g} by differences"
    return None
