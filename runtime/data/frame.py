"""A frame in memory, of pandas, polars or Arrow, read as a table of a file is.

In: a frame, the inputs that are wanted, and the schema of the frame (or file) that the network was trained with, if it
was with one. Out: the columns of the inputs. The target is the column that has the name of the train block's last
input; texts in it are classes, in sorted order, and those of another column are names for the input of its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...dsl.errors import ArgumentTypeError, DataError, error
from ..call import foreign
from ..call.arrays import Wanted
from ..call.column import Array, Rows
from ..call.messages import argument_error, listed
from .dataset import Dataset, of_table
from .files import malformed
from .table import Schema, Table, check_features, class_column, fill


def read(frame: Any, inputs: Sequence[str], schema: Schema | None, with_target: bool = True) -> Dataset:
    """The frame as a data set for the `inputs` of a train block; with a `schema` it is read as that says, its columns
    in any order. Raises `ArgumentTypeError` E0602 where values are missing or are neither numbers nor texts, and
    `DataError` where the columns are not those of the schema."""
    name = foreign.type_name(frame)
    columns = _columns(frame, name)
    target = schema.target if schema is not None else inputs[-1] if len(inputs) > 1 and inputs[-1] in columns else None
    goal = columns.pop(target, None) if target is not None else None
    if schema is not None:
        check_features(Path(name), list(columns), schema)
        columns = {n: columns[n] for n in schema.features}
    found: dict[str, Rows] = {}
    categories: dict[str, tuple[str, ...]] = {}
    for n, values in columns.items():
        known = None if schema is None or n not in schema.categories else Schema((), n, schema.categories[n])
        found[n], names = _numbers(name, n, values, known, schema is not None)
        categories |= {n: names} if names is not None else {}
    if schema is not None:
        found = fill(found, schema)
    learned = schema or Schema(tuple(columns), target, categories=categories)
    text = None
    if goal is not None and target is not None and with_target:
        known = schema if schema is not None and schema.classes is not None else None
        found[target], classes = _numbers(name, target, goal, known, schema is not None)
        learned = schema or replace(learned, classes=classes)
        text = f"{goal[0][:40]!r} in the first row" if classes else None
    return replace(of_table(Table(found, learned, text)), name=name)


def _columns(frame: Any, name: str) -> dict[str, Array]:
    try:
        columns = foreign.columns(frame)
    except foreign.Unfit as e:
        raise argument_error("E0602", f"expected a frame, got {e.got}", e.help, ArgumentTypeError) from None
    found = {}
    for n, column in columns.items():
        try:
            found[n] = foreign.column(column)
        except foreign.Unfit as e:
            raise argument_error("E0602", f"`{n}` of {name} is {e.got}", e.help, ArgumentTypeError) from None
        if found[n].dtype.kind not in "biuf" and not foreign.is_text(found[n]):
            what = f"`{n}` of {name} must be numbers or texts, got {found[n].dtype}"
            raise argument_error("E0602", what, kind=ArgumentTypeError)
    return found


def _numbers(
    frame: str, name: str, values: Array, known: Schema | None, trained: bool
) -> tuple[Array, tuple[str, ...] | None]:
    """A column as numbers, and what the texts are that they number; `known` are those of the training."""
    text = values.dtype.kind not in "biuf"
    if not text and known is None:
        return values, None
    if not text or (known is None and trained):
        wanted, got = ("numbers", "texts") if text else ("texts", "numbers")
        raise malformed(frame, f"{wanted} as `{name}`, as in training", got)
    return class_column(Path(frame), values.tolist(), known)


def columns_for(
    frame: Any, names: Sequence[str], wants: Sequence[Wanted], inputs: Sequence[str], schema: Schema | None
) -> list[Rows]:
    """The columns for the inputs `names` of an entry of a network with the train block's `inputs`."""
    return for_inputs(read(frame, inputs, schema, with_target=inputs[-1] in names), names, wants)


def for_inputs(dataset: Dataset, inputs: Sequence[str], wants: Sequence[Wanted]) -> list[Rows]:
    """The columns of a frame for the inputs of an entry (E0613)."""
    if dataset.match(dataset.train, inputs, wants) is not None:
        return dataset.for_training(inputs, wants)
    raise error(
        "E0613",
        f"{dataset.name} has the columns {listed(list(dataset.train))}, wanted are {listed(inputs)}",
        help=f"the column of the target is called as the input: `{inputs[-1]}`",
        kind=DataError,
    )
