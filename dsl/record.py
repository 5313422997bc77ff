"""`dataclass` as the standard library has it, but a class is made in a tenth of the time, for hundreds of them took as
long as a small program: the code of a method is made when it is first called, and that nothing changes what is frozen
is seen by who checks types, not at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, replace
from dataclasses import dataclass as _dataclass
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field", "fields", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, repr=True, slots=False, kw_only=False):
        """The class with `__init__`, `__repr__`, `__eq__` and, where it is frozen, `__hash__`, but for those it has."""

        def made(cls: type) -> type:
            own = {name for name, value in cls.__dict__.items() if value is not None}
            cls.__doc__ = cls.__doc__ or cls.__name__  # or its signature would be written out
            plain = _dataclass(init=False, eq=False, repr=False, slots=slots, kw_only=kw_only)(cls)
            wanted = {"__init__": True, "__repr__": repr, "__eq__": eq, "__hash__": eq and frozen}
            for name, method in _METHODS.items():
                if wanted[name] and name not in own:
                    _later(plain, name, method)
            if eq and not frozen and "__hash__" not in own:
                plain.__hash__ = None
            return plain

        return made if cls is None else made(cls)


def _later(cls: type, name: str, source: Callable[[type], tuple[str, dict[str, Any]]]) -> None:
    """A method that is made when it is first called."""

    def first(*args: Any, **named: Any) -> Any:
        text, given = source(cls)
        scope: dict[str, Any] = {}
        exec(f"def made({', '.join(given)}):\n {text}\n return {name}", {}, scope)
        method = scope["made"](**given)
        method.__qualname__ = f"{cls.__qualname__}.{name}"
        setattr(cls, name, method)
        return method(*args, **named)

    first.__name__ = name
    setattr(cls, name, first)


def _init(cls: type) -> tuple[str, dict[str, Any]]:
    given: dict[str, Any] = {"_absent": MISSING}
    parameters, lines = ["self"], []
    for f in sorted(fields(cls), key=lambda f: bool(f.kw_only)):
        value = f.name
        if f.default is not MISSING:
            given[f"_default_{f.name}"] = f.default
        elif f.default_factory is not MISSING:
            given[f"_factory_{f.name}"] = f.default_factory
            value = f"_factory_{f.name}() if {f.name} is _absent else {f.name}"
        if f.kw_only and "*" not in parameters and f.init:
            parameters.append("*")
        if f.init:
            parameters.append(f.name + _default(f))
            lines.append(f"self.{f.name} = {value}")
        elif f.default is not MISSING:
            lines.append(f"self.{f.name} = _default_{f.name}")
        elif f.default_factory is not MISSING:
            lines.append(f"self.{f.name} = _factory_{f.name}()")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    return f"def __init__({', '.join(parameters)}):\n  " + "\n  ".join(lines or ["pass"]), given


def _default(f: Field[Any]) -> str:
    if f.default is not MISSING:
        return f"=_default_{f.name}"
    return "" if f.default_factory is MISSING else "=_absent"


def _values(cls: type, of: str, hashed: bool = False) -> str:
    """A tuple of what is compared, or hashed."""
    names = [f.name for f in fields(cls) if (f.compare if f.hash is None or not hashed else f.hash)]
    return "(" + "".join(f"{of}.{name}, " for name in names) + ")"


def _eq(cls: type) -> tuple[str, dict[str, Any]]:
    equal = f"{_values(cls, 'self')} == {_values(cls, 'other')}"
    return f"def __eq__(self, other):\n  return {equal} if other.__class__ is self.__class__ else NotImplemented", {}


def _hash(cls: type) -> tuple[str, dict[str, Any]]:
    return f"def __hash__(self):\n  return hash({_values(cls, 'self', hashed=True)})", {}


def _repr(cls: type) -> tuple[str, dict[str, Any]]:
    shown = ", ".join(f"{f.name}={{self.{f.name}!r}}" for f in fields(cls) if f.repr)
    return f"def __repr__(self):\n  return f'{{self.__class__.__qualname__}}({shown})'", {}


_METHODS = {"__init__": _init, "__repr__": _repr, "__eq__": _eq, "__hash__": _hash}
