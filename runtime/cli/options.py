"""The options that commands share, and the model they name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...compiler.manifest import STAGE
from ...compiler.settings import Settings
from ...compiler.types.tensors import FORMATS
from ...dsl.record import dataclass
from ...dsl.source import Source
from ..store.facts import load
from .show import warn, working

if TYPE_CHECKING:
    from ...compiler.session import Session
    from ..data.dataset import Dataset
    from ..model import Model

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Settings):
    """What to compile, as the options say it: how, and from which file, with `data` in place of the train block's."""

    file: str
    data: str | None = None

    def read(self) -> Source:
        from ...dsl.parser import read_source

        return read_source(self.file)

    def session(self, source: Source | None = None) -> tuple[Session, Dataset | None]:
        """The compiled program; its warnings are shown."""
        with working(f"reading {Path(self.file).name}"):
            from ...dsl.tables import begin_tables

            begin_tables()
            from ..api import open_program

            source = source or self.read()
            session, dataset = open_program(source, self, folder=Path(self.file).parent, override=self.data)
        warn(session.manifest.warnings)
        return session, dataset

    def open(
        self,
        seed: int | None = None,
        threads: int | None = None,
        entries: tuple[str, ...] = (),
        source: Source | None = None,
        shards: int | None = None,
    ) -> Model:
        """The model, with the data of its train block where `--data` says where they are; `entries` are those that
        will be needed: compiled together they take less time. `source` takes the place of what the file says now; with
        `shards`, or where the file has some, `train` is the stages of a step."""
        with working(f"reading {Path(self.file).name}"):
            from .. import settings
            from ..model import Model  # LLVM before NumPy: where memory is short, it says so

        session, dataset = self.session(source)
        wanted = [e for e in ("init", *entries) if e in session.manifest.entries]
        spec = session.manifest.train
        if "train" in wanted and spec is not None and (shards or spec.shards):
            wanted = [*(e for e in wanted if e != "train"), f"{STAGE}0", f"{STAGE}1"]
        with working(f"compiling {', '.join(entries and wanted[1:]) or 'init'}"):
            session.prepare(wanted, settings.threads(threads))
        return Model(
            session, seed=seed, threads=threads, folder=Path(self.file).parent, dataset=dataset, data_path=self.data
        )


class Setting(click.ParamType[tuple[str, Any]]):
    """`name=value`, the value a number, true, false or text; or, with `files`, `@path`, a JSON object of such pairs,
    which is the pair of `@` and the object."""

    name = "NAME=VALUE"

    def __init__(self, integer: bool = False, files: bool = False):
        self.integer, self.files = integer, files

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        if self.files and str(value).startswith("@"):
            return "@", self._read(Path(str(value)[1:]), param, ctx)
        name, equals, text = str(value).partition("=")
        if not equals or not name.strip():
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        parsed = _value(text.strip())
        if self.integer and (type(parsed) is not int or parsed < 0):
            self.fail(f"{name} must be a size, not {text!r}", param, ctx)
        return name.strip(), parsed

    def _read(self, path: Path, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            found = load(path)
        except OSError as e:
            self.fail(f"{path}: {(e.strerror or str(e)).lower()}", param, ctx)
        except ValueError as e:
            self.fail(f"{path} is not JSON: {e}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{path} is not a JSON object of names and values", param, ctx)
        return found


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def program_options(f: F | None = None, *, required: bool = True) -> Callable[..., Any]:
    """FILE and how to compile it; the command gets one `Program`, whose file is empty where FILE may be missing."""
    if f is None:
        return partial(program_options, required=required)

    @click.argument("file", type=str, required=required)
    @click.option("--model", metavar="NAME", help="Which model, where the file has several.")
    @click.option(
        "--set",
        "hyper",
        type=Setting(files=True),
        multiple=True,
        help="A value for a hyper: --set lr=3e-4; or a JSON file of them: --set @FILE.",
    )
    @click.option("--size", "sizes", type=Setting(integer=True), multiple=True, help="A size of parameters: D=4.")
    @click.option("--data", metavar="PATH", help="Data in place of those the train block names.")
    @click.option("--dtype", type=click.Choice(["f32", "f64"]), default="f32", help="f64 reads every f32 as f64.")
    @click.option("--target-cpu", default="native", metavar="CPU", help="native, x86-64-v2, x86-64-v3 or x86-64-v4.")
    @click.option("--precise", is_flag=True, help="Without Winograd's algorithm, whose last digits differ.")
    @click.option(
        "--weights-dtype", type=click.Choice(FORMATS), default="f32", help="What predictions read parameters in."
    )
    @click.option("--no-cache", is_flag=True, help="Neither read nor write compiled code on disk.")
    @wraps(f)
    def command(
        file: str | None,
        model: str | None,
        hyper: tuple[tuple[str, Any], ...],
        sizes: tuple[tuple[str, int], ...],
        data: str | None,
        dtype: str,
        target_cpu: str,
        precise: bool,
        weights_dtype: str,
        no_cache: bool,
        **rest: Any,
    ) -> Any:
        settings: dict[str, Any] = {}
        for name, value in hyper:
            settings |= value if name == "@" else {name: value}
        program = Program(
            file=file or "",
            model=model,
            hyper=settings,
            sizes=dict(sizes),
            dtype=dtype,
            target_cpu=target_cpu,
            precise=precise,
            weights_dtype=weights_dtype,
            cache=not no_cache,
            data=data,
        )
        return f(program, **rest)

    return command
