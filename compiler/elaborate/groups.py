"""Groups of variables: which belong together.

Two groups match member by member: by path, or by the path relative to their roots, so that `params(Target)` meets
`params(Net)` and `params(Net.body)` meets `params(Teacher.body)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...dsl.errors import error
from ...dsl.source import Span
from .values import Group, Tensor


def matched(groups: Sequence[Group], span: Span) -> Mapping[str, tuple[Tensor, ...]]:
    """The members that belong together, by the path of the first group's. Raises E0307 or E0301, which names the member
    that has no partner, or one of another type."""
    first, *others = groups
    partners = {path: [t] for path, t in first.members.items()}
    for other in others:
        same = other.members.keys() == first.members.keys()
        relative = other.members if same else {other.relative(p): t for p, t in other.members.items()}
        for path, found in partners.items():
            name = path if same else first.relative(path)
            if name not in relative:
                raise error("E0307", f"`{path}` has no partner in {_title(other)}", span, help=_members(other))
            if not same and relative[name].shape != found[0].shape:
                raise error(
                    "E0301",
                    f"`{path}` is {found[0].type}, but its partner in {_title(other)} is {relative[name].type}",
                    span,
                )
            found.append(relative[name])
        if len(relative) > len(partners):
            names = {first.relative(p) for p in partners}
            alone = next(p for p in other.members if (p if same else other.relative(p)) not in names)
            raise error("E0307", f"`{alone}` has no partner in {_title(first)}", span, help=_members(first))
    return {path: tuple(found) for path, found in partners.items()}


def _title(group: Group) -> str:
    return f"the group of `{group.root}`" if group.root else "the other group"


def _members(group: Group) -> str | None:
    """What there is instead."""
    names = [f"`{p}`" for p in group.members]
    return f"it has {', '.join(names[:8])}{' ..' if len(names) > 8 else ''}" if names else None
