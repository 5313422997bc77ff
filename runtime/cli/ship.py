"""The commands about networks that leave: build, reproduce, state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, DataError, UnsupportedError, error
from ..call.messages import human, unknown
from ..store.files import write, writing
from .options import Program, program_options
from .runs import train_again
from .show import is_on, metrics_text, print_table, say, show_result, working
from .trained import trained

if TYPE_CHECKING:
    from ..model import Model
    from ..ship.build import Build

_USUAL = "x86-64-v3"  # what is built for where nothing is said
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _list_targets(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from ...compiler.native.alone import ALONE

    rows = []
    for t in ALONE.values():
        by_dtype: dict[str, list[str]] = {}
        for name, _, dtype in (i.partition(".") for i in sorted(t.lacks)):
            by_dtype.setdefault(dtype, []).append(name)
        lacks = "; ".join(f"{dtype} {', '.join(names)}" for dtype, names in by_dtype.items())
        rows.append((t.name, t.triple, t.cpu, lacks, str(len(t.calls)) if t.calls else "nothing"))
    columns = ("target", "triple", "processor", "written out", "may call, of libgcc")
    show_result([dict(zip(columns, row, strict=True)) for row in rows], lambda: print_table(columns, rows, left=4))
    ctx.exit()


@click.command()
@program_options
@click.option(
    "--targets",
    "listed",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_list_targets,
    help="List what can be built for.",
)
@click.option(
    "--target", "targets", multiple=True, metavar="TARGET", help="What to build for: aarch64 (default: x86-64-v3)."
)
@click.option("--train", "trains", is_flag=True, help="With the training step.")
@click.option("--weights", metavar="PATH", help="A checkpoint: what predictions read becomes a constant.")
@click.option(
    "--weights-as",
    type=click.Choice(["object", "c"]),
    default="object",
    help="Where that constant is: in the library, or in a file of C to be placed by its compiler.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["lib", "python", "wasm", "arduino"]),
    default="lib",
    help="A C library, a wheel, a folder for npm, or a library for Arduino.",
)
@click.option("--optimize", type=click.Choice(["speed", "size"]), help="By default size on bare processors.")
@click.option("--page", "as_page", is_flag=True, help="With --as wasm --train: one HTML file that trains in a browser.")
@click.option("--shared", is_flag=True, help="Also a shared object, for x86-64 or aarch64: what `dlopen` takes.")
@click.option("--entry", "exports", multiple=True, metavar="NAME", help="Also this export of the file.")
@click.option("--name", metavar="NAME", help="What all names begin with (default: that of the file).")
@click.option("-o", "--output", metavar="DIR", help="Where to write (default: a folder of that name).")
def build(
    program: Program,
    targets: tuple[str, ...],
    trains: bool,
    weights: str | None,
    weights_as: str,
    form: str,
    optimize: Any,
    as_page: bool,
    shared: bool,
    exports: tuple[str, ...],
    name: str | None,
    output: str | None,
) -> None:
    """Make a library of a network, which needs nothing of ours.

    FILE is a .nn file or a run's folder; made are a C header, an object and an example, or what --as says."""
    from ...compiler.standalone.build import entries
    from ..ship.build import build as built

    prefix = _prefix(program, name)
    folder = Path(output or prefix)
    of_run = Path(program.file).is_dir()
    net = trained(program, weights, 1, warn=False)
    names = entries(net.manifest, trains, exports)
    for export in exports:
        if export not in net.exports:
            raise unknown("export", export, net.exports)
    if trains and net.manifest.train is None:
        what = f"{net.name} has no train block, so there is no training step to build"
        raise error("E0609", what, help="leave out --train", kind=ArgumentError)
    if not names:
        known = ", ".join(net.exports) or "none"
        raise error(
            "E0608", f"say what to build with --entry: there is no `predict`; exports: {known}", kind=ArgumentError
        )
    learned = weights or (program.file if of_run else None)
    if weights_as == "c" and (learned is None or form != "lib"):
        raise click.UsageError("--weights-as c is for a C library of a run, or of FILE with --weights")
    if as_page:
        if form != "wasm" or not trains:
            raise click.UsageError("--page is a page that trains: it goes with --as wasm --train")
        _page(net, prefix, output)
        return
    if form != "lib" and targets and (form, targets) != ("python", ("aarch64",)):
        besides = ", but --target aarch64" if form == "python" else ""
        raise click.UsageError(f"--as {form} has targets of its own: it takes no --target{besides}")
    held_out = _held_out(net) if learned is not None else {}
    with working(f"building {prefix}"):
        if form == "lib":
            made = [built(net, t, prefix, names, learned, optimize, weights_as == "c") for t in targets or (_USUAL,)]
            more = [b.shared() if shared else {} for b in made]
        else:
            folder = Path(output or ".") if form == "python" else folder
            wheel = partial(_wheel, machine="".join(targets) or "x86_64")
            forms: Mapping[str, Callable[..., _Files]] = {"wasm": _web, "python": wheel, "arduino": _arduino}
            files, one, then = forms[form](net, prefix, names, learned, folder)
    if form == "lib":
        for b, also in zip(made, more, strict=True):
            _write(folder if len(made) == 1 else folder / b.target, {**b.files, **also})
        result: Any = [{**b.facts, "held_out": held_out} for b in made]
    else:
        _write(folder, files)
        sizes = {name: len(data) for name, data in files.items()}
        result = {**one.facts, "held_out": held_out, "files": sizes}

    def draw() -> None:
        if form == "lib":
            _show(folder, made)
        else:
            print_table(("file", "size"), [(str(folder / name), human(n)) for name, n in sizes.items()])
            say(then)
        for dtype, metrics in held_out.items():
            say(f"what was held out, with weights in {dtype}: {metrics_text(metrics)}")

    show_result(result, draw)


_Files = tuple[Mapping[str, bytes], "Build", str]  # by name, what they are of, what to do with them


def _web(net: Model, prefix: str, names: list[str], learned: str | None, folder: Path) -> _Files:
    from ..ship.web import web

    here = folder if folder.is_absolute() else f"./{folder}"
    return *web(net, prefix, names, learned), f'import {{ load }} from "{here}/index.mjs"; with npm: npm install {here}'


def _wheel(net: Model, prefix: str, names: list[str], learned: str | None, folder: Path, machine: str) -> _Files:
    from ..ship.wheel import wheel

    name, data, made = wheel(net, prefix, names, learned, machine=machine)
    then = f"try: pip install {folder / name}, then import {prefix} in Python: it needs NumPy alone"
    return {name: data}, made, then


def _arduino(net: Model, prefix: str, names: list[str], learned: str | None, folder: Path) -> _Files:
    from ..ship.arduino import arduino

    then = f"put {folder} where Arduino has its libraries, then open the example {prefix}"
    return *arduino(net, prefix, names, learned), then


def _page(net: Model, prefix: str, output: str | None) -> None:
    from ..ship.page import page

    path = Path(output or f"{prefix}.html")
    write(path, data := page(net, prefix))
    text = f"{path}: {human(len(data))}; open it in a browser, it needs no network"
    show_result({"files": {str(path): len(data)}}, lambda: say(text))


def _held_out(net: Model) -> dict[str, dict[str, float | int]]:
    """What weights in fewer bytes cost: the metrics of what was held out, with weights in f32 and with those."""
    from ...compiler.session import Session
    from ..check.twin import twin

    assert isinstance(net.session, Session)
    dtype = net.session.settings.weights_dtype
    if dtype == "f32" or net.manifest.train is None:
        return {}
    try:
        return {d: twin(net, weights_dtype=d).evaluate() for d in ("f32", dtype)}
    except (ArgumentError, DataError) as e:
        say(f"what weights in {dtype} cost is not known, for there are no data: {e}", err=True)
        return {}


def _prefix(program: Program, name: str | None) -> str:
    """What names in C begin with."""
    if name is None:
        name = re.sub(r"[^a-z0-9_]", "_", Path(program.file).resolve().stem.lower())
        return name if _NAME.fullmatch(name) else f"net_{name}"
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"--name is what names in C begin with: lower case, digits and _, not {name!r}")
    return name


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        with writing(folder / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, data)


def _show(folder: Path, made: list[Build]) -> None:
    facts = [b.facts for b in made]
    batch = facts[0]["batch"]
    columns = ("target", "undefined", "code and constants", "state", "prepared", "predict 1", f"train {batch}", "stack")
    rows = [
        (f["target"], " ".join(f["undefined"]) or "nothing", human(f["flash"]), human(f["state"]), human(f["prepared"]),
         *(human(n) if n is not None else "" for n in f["scratch"].values()), human(max(f["stack"].values())))
        for f in facts
    ]  # fmt: skip
    print_table(columns, rows, left=2)
    functions = ", ".join(f"{n}()" for n in facts[0]["functions"])
    say(f"scratch memory is for so many examples, the stack that of the deepest function; {functions}")
    say(f"{folder}: {', '.join(made[0].files)}")
    here = folder if len(made) == 1 else folder / made[0].target
    p = made[0].prefix
    text = [f"{here}/{name}" for name in made[0].files if name == f"{p}_weights.c"]
    sources = " ".join([f"{here}/example.c", *text, f"{here}/lib{p}.a"])
    say(f"try: cc -std=c99 -I{here} {sources} -o example && ./example")


@click.command()
@click.argument("lock_file", metavar="LOCK|RUN")
@click.argument("file", required=False)
@click.option("--weights", metavar="PATH", help="The checkpoint that was a constant.")
def reproduce(lock_file: str, file: str | None, weights: str | None) -> None:
    """Build or train again, and compare every byte.

    Of LOCK it builds what that is of, of RUN it trains.
    FILE is where the program is now (default: a file of its name beside LOCK, in the folder above, or here)."""
    from ...compiler.native.objects import version
    from ..ship.build import build as built
    from ..ship.lock import digest, digest_of, read_lock
    from ..store.checkpoint import of_run

    path = Path(lock_file)
    if path.is_dir():
        if file is not None or weights is not None:
            raise click.UsageError("a run knows its file and the weights that it began with")
        train_again(path)
        return
    lock = read_lock(path)
    main = next(iter(lock.sources), "")
    found = file or _found(path, main)
    given = weights or (_found(path, next(iter(lock.weights))) if lock.weights else None)
    program = Program(
        file=found,
        model=lock.model,
        hyper=lock.hyper,
        sizes=lock.sizes,
        dtype=lock.dtype,
        precise=lock.precise,
        weights_dtype=lock.weights_dtype,
    )
    net = trained(program, given, 1, warn=False)
    made = built(net, lock.target, lock.name, list(lock.entries), given, lock.optimize, lock.as_text)
    now = {Path(name).name: digest(text.encode()) for name, text in net.manifest.sources.items()}
    now[main] = now.pop(Path(found).name, "")  # whatever it is called now
    now |= {Path(name).name: of for name, of in net.manifest.files.items()}
    now |= {name: digest_of(of_run(Path(given))) for name in lock.weights if given is not None}
    now |= {name: digest(data) for name, data in made.files.items()}
    wanted = {**lock.sources, **lock.arrays, **lock.weights, **lock.files}
    differ = [name for name, of in wanted.items() if now.get(name) != of]
    rows = [(n, of[:16], now.get(n, "")[:16], "differs" if n in differ else "") for n, of in wanted.items()]
    if not is_on("json"):
        print_table(("file", "was", "is", ""), rows, left=4)
    if differ:
        who = "" if lock.compiler == version() else f" (made by {lock.compiler}, this is {version()})"
        what = f"{path}: expected the same bytes, found others in {', '.join(differ)}{who}"
        raise error("E0623", what, kind=DataError)
    show_result({"same": True, "files": list(wanted)}, lambda: say(f"{path}: the same, byte for byte"))


def _found(lock: Path, name: str) -> str:
    """A file that a lock names: beside it, in the folder above, or here."""
    for folder in (lock.parent, lock.parent.parent, Path()):
        if (folder / name).is_file():
            return str(folder / name)
    what = f"{lock}: expected `{name}` beside it, in the folder above or here, found none"
    raise error("E0622", what, help="say where it is: `nnc reproduce LOCK FILE --weights PATH`", kind=DataError)


@click.group()
def state() -> None:
    """Take a training from a run to C and back.

    All there is to it are the bytes of the C struct `NAME_state`."""


@state.command()
@program_options
@click.option("--weights", metavar="PATH", help="A checkpoint.")
@click.option("--only-weights", is_flag=True, help="The struct NAME_weights alone.")
@click.option("-o", "--output", required=True, metavar="PATH", help="The file to write.")
def export(program: Program, weights: str | None, only_weights: bool, output: str) -> None:
    """Write the state of FILE with --weights, or of a run's folder."""
    from ..ship.learned import read

    net = trained(program, weights, 1)
    struct, layout = _struct(net, only_weights)
    data = read(net, struct, layout)
    write(Path(output), data)
    text = f"{output}: {struct.name} of {net.name}, {human(len(data))}"
    show_result({"written": output, "struct": struct.name, "bytes": len(data)}, lambda: say(text))


@state.command(name="import")
@program_options
@click.argument("state_file", metavar="STATE")
@click.option("--only-weights", is_flag=True, help="STATE is the struct NAME_weights alone.")
@click.option("-o", "--output", required=True, metavar="PATH", help="The checkpoint to write.")
def import_(program: Program, state_file: str, only_weights: bool, output: str) -> None:
    """Make a checkpoint of FILE from STATE, the bytes of a state that a C program wrote."""
    from ..ship.learned import take
    from ..store.checkpoint import reading

    net = trained(program, None, 1, warn=False)
    struct, layout = _struct(net, only_weights)
    with reading(Path(state_file)) as f:
        data = f.read(struct.nbytes + 1)
    if len(data) != struct.nbytes:
        found = "more" if len(data) > struct.nbytes else f"{len(data)}"
        what = f"{state_file}: expected the {struct.nbytes} bytes of {struct.name} of {net.name}, found {found}"
        raise error("E0623", what, kind=DataError)
    if layout is not None and data[:8] != layout.to_bytes(8, "little"):
        what = f"{state_file}: expected a state of {net.name} as FILE has it, found one of another network or version"
        raise error("E0624", what, kind=DataError)
    take(net, struct, data)
    if "train/epoch" in net.variables:
        net.epochs_done = int(net.variables["train/epoch"])
    net.save(output)
    text = f"{output}: a checkpoint of {net.name}, after {net.epochs_done} epochs"
    show_result({"written": output, "epochs": net.epochs_done}, lambda: say(text))


def _struct(net: Model, only_weights: bool) -> tuple[Any, int | None]:
    from ...compiler.standalone import structs

    learned = structs.weights(net.manifest)
    if only_weights:
        return learned, None
    if net.manifest.train is None:
        what = f"{net.name} has no train block, so it has no state"
        raise error("E0632", what, help="--only-weights", kind=UnsupportedError)
    whole = structs.state(net.manifest, learned)
    return whole, structs.layout(whole)
