"""Pages of the reference that are made of what the sources say: the library, the commands, formats, error codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

import click

from nnc.dsl.codes import explain, known
from nnc.dsl.standard import definitions
from nnc.runtime.cli import cli
from nnc.runtime.data.formats import formats


def pages() -> Iterator[tuple[str, str]]:
    """(path on the site, Markdown) of each."""
    yield from _library()
    yield "runtime/cli/commands.md", _commands()
    yield "runtime/data/formats.md", _formats()
    yield "dsl/explain/README.md", _codes()


def _library() -> Iterator[tuple[str, str]]:
    """A page for each family of the standard library, and one that lists them."""
    found = definitions()
    lines = ["# The standard library", "", "Each definition with its comment and its source, family by family.", ""]
    for family in sorted({family for family, _ in found.values()}):
        names = [name for name, (of, _) in found.items() if of == family]
        links = [f"[`{name}`]({family}.md#{name.lower()})" for name in names]
        lines += [f"- [{family.replace('_', ' ')}]({family}.md): {', '.join(links)}"]
        yield f"dsl/std/{family}.md", _family(family, names)
    yield "dsl/std/README.md", "\n".join(lines) + "\n"


def _family(family: str, names: list[str]) -> str:
    text = [f"# {family.replace('_', ' ').capitalize()}", "", f"`dsl/std/{family}.nn` of the standard library.", ""]
    for name in names:
        definition = definitions()[name][1]
        text += [f"## {name}", "", _plain(definition.doc or ""), "", "```nn", definition.span.text, "```", ""]
    return "\n".join(text)


def _plain(text: str) -> str:
    """A comment in Markdown: signs stand for themselves but in backticks, and what is indented is set as code."""
    parts = re.split(r"((?:^    .*\n?)+)", text, flags=re.M)  # prose, code, prose ...
    prose = [re.sub(r"(`[^`]*`)|([\\`*_\[\]<>#|~])", lambda m: m[1] or "\\" + m[2], p) for p in parts[::2]]
    code = [f"\n\n{p}\n" for p in parts[1::2]]
    return "".join(a + b for a, b in zip_longest(prose, code, fillvalue=""))


def _commands() -> str:
    text = ["# Commands", "", "What `nnc COMMAND --help` says of each.", ""]
    for path, command in _walk(["nnc"], cli):
        said = command.get_help(click.Context(command, info_name=" ".join(path), max_content_width=100))
        text += [f"## {' '.join(path)}", "", "```", said, "```", ""]
    return "\n".join(text)


def _walk(path: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
    """A command and those below it, each with its words."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (below := command.get_command(context, name)) is not None:
                yield from _walk([*path, name], below)


def _formats() -> str:
    text = "\n".join(f.page() for f in formats().values())
    return "# Data sources\n\nWhat stands behind `data =` in a train block.\n\n" + re.sub("^#", "##", text, flags=re.M)


def _codes() -> str:
    rows = [(code, (explain(code) or "").split("\n")[0].split(": ", 1)[-1]) for code in known()]
    return "# Error codes\n\n" + "\n".join(f"- [{code}]({code}.md): {says}" for code, says in rows) + "\n"
