"""Running the tests that stand in `.nn` files.

In: a file. Out: a `Result` per test, with a message and the source span for each assertion that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.elaborate.checks import Check
from ...compiler.settings import Settings
from ...dsl.diagnostics import Diagnostic, Label
from ...dsl.errors import NncError
from ...dsl.source import Source
from ..api import folder_of, open_program
from ..call.calls import Call
from ..model import Model
from .gradcheck import check_model

_COMPARE = {
    "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """One test of a file; it passed when `failures` is empty."""

    file: str
    name: str
    checks: int
    failures: tuple[Diagnostic, ...]


def run_file(source: Source, settings: Settings | None = None) -> Iterator[Result]:
    """Each test of a file, in order. Raises SourceError where the file itself is wrong."""
    settings = settings or Settings()
    session, dataset = open_program(source, settings)
    plans = session.plan_tests()
    net = Model(session, threads=1, folder=folder_of(source), dataset=dataset)
    for k, plan in enumerate(plans):
        values = _values(net, k) if plan.graph.outputs else {}
        failures = [d for check in plan.checks if (d := _failure(source, check, values, settings)) is not None]
        yield Result(source.name, plan.name, len(plan.checks), tuple(failures))


def _values(net: Model, k: int) -> dict[str, Any] | NncError:
    try:
        native = net.session.entry(f"test:{k}")
        call = Call(native, net.variables, net.workspace)
        return dict(zip([p.name for p in native.signature.outputs], call(), strict=True))
    except NncError as e:
        return e


def _failure(source: Source, check: Check, values: dict[str, Any] | NncError, settings: Settings) -> Diagnostic | None:
    def failed(message: str) -> Diagnostic:
        return Diagnostic("E0615", message, (Label(check.span),))

    if check.model is not None:
        try:
            check_model(_model_named(source, check.model, settings))
        except NncError as e:
            return failed(e.diagnostics[0].message)
        return None
    if check.passed is not None:
        if check.passed:
            return None
        return check.diagnostics[0] if check.diagnostics else failed(check.message)
    if isinstance(values, NncError):
        return failed(values.diagnostics[0].message)
    got = values[check.got]
    if check.want is None:
        return None if bool(np.all(got)) else failed("this is not true everywhere")
    return _compare(got, values[check.want], check, failed)


def _compare(got: Any, want: Any, check: Check, failed: Callable[[str], Diagnostic]) -> Diagnostic | None:
    if check.op != "==":
        return (
            None
            if bool(np.all(_COMPARE[check.op](got, want)))
            else failed(f"this is {_show(got)} {check.op} {_show(want)}")
        )
    g, w = np.broadcast_arrays(np.asarray(got), np.asarray(want))
    exact = g == w
    if g.dtype.kind == "f":
        exact = exact | (np.isnan(g) & np.isnan(w))
        with np.errstate(invalid="ignore"):
            exact = exact | (np.abs(g.astype(np.float64) - w.astype(np.float64)) <= check.within)
    if bool(np.all(exact)):
        return None
    if g.size > 1:
        at = tuple(int(i) for i in np.argwhere(~exact)[0])
        return failed(
            f"element {list(at)} is {_show(g[at])}, but {_show(w[at])} is expected"
            f" ({int((~exact).sum())} of {g.size} differ)"
        )
    return failed(
        f"this is {_show(g)}, but {_show(w)} is expected{f' within {check.within:g}' if check.within else ''}"
    )


def _show(value: Any) -> str:
    a = np.asarray(value)
    if a.size == 1:
        return repr(a.reshape(()).item())
    return np.array2string(a, threshold=12, separator=", ")


def _model_named(source: Source, name: str, settings: Settings) -> Model:
    session, dataset = open_program(source, replace(settings, model=name))
    return Model(session, threads=1, folder=folder_of(source), dataset=dataset)


def files_under(path: Path) -> list[Path]:
    """The `.nn` files a path names: itself, or all below a folder, sorted."""
    return sorted(path.rglob("*.nn")) if path.is_dir() else [path]
