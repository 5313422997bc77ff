"""The digits that ship with nnc.

Out: 1,797 handwritten 8x8 digits: grey values in [0, 1] as f32[N, 1, 8, 8], labels i32[N].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Dataset
from .files import malformed, opened, text_lines
from .format import Format, Option
from .table import Schema

_SHIPPED = Path(__file__).parents[2] / "models" / "data" / "digits.csv.gz"


def read(path: Path | None, _: Schema | None, /) -> Dataset:
    path = path or _SHIPPED
    with opened(path) as f:
        try:
            table = np.loadtxt(text_lines(f, path, "ascii"), np.uint8, delimiter=",", ndmin=2)
        except ValueError as e:
            raise malformed(path, "rows of 65 small integers", str(e).lower()) from e
    if table.shape[1] != 65:
        raise malformed(path, "rows of 65 small integers", f"{table.shape[1]} columns")
    x = (table[:, :64].astype(np.float32) / 16).reshape(-1, 1, 8, 8)
    return Dataset("", {"x": x, "label": table[:, 64].astype(np.int32)}, None, ("x", "label"))


DIGITS = Format(
    name="digits",
    about="1,797 handwritten digits that ship with nnc: `x` f32[B, 64] in [0, 1], `label` i32[B]. A fifth is held out "
    "unless `validation` says otherwise.",
    example="digits()",
    read=read,
    options=(Option("path", str | None, "another file of such rows", None, is_path=True),),
    takes="file",
    held_out=0.2,
)
