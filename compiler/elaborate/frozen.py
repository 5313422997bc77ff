"""Constants of a tensor type: a list of numbers, or the array of a file, `const t: f32[9, 9] = file("t.npy")`.

In: the definition. Out: a tensor of the declared type, or E0206 with the place in the program. A file is read once, as
bytes, when the program is made, so that what was compiled and what its key says are of the same content; what these
bytes mean `Settings.arrays` knows.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from ...dsl import ast
from ...dsl.errors import NncError, error
from ...dsl.files import read_numbers
from ..types.tensors import TensorType
from .builtins import BUILTINS
from .context import Context
from .limits import check_type
from .scope import Scope
from .shapes import tensor
from .signatures import dtype_of
from .values import Tensor, Value, kind

MAX_ELEMENTS = 1 << 18  # of an array: each is written out in the code


class Files:
    """The arrays of files that constants name. `digests` are those of what was read, by path."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self._content: dict[str, bytes] = {}
        self._values: dict[int, tuple[Any, ...]] = {}  # by definition

    def read(self, cx: Context, d: ast.Const, scope: Scope) -> None:
        """Read the file that a constant names, if it names one."""
        call = d.value
        if not isinstance(call, ast.Call) or not _is_file(call.function, scope) or id(d) in self._values:
            return
        path, member = self._named(cx, call, scope)
        if d.type is None or d.type.dims is None:
            raise error("E0206", f"the constant `{d.name}` of a file needs a type", d.span, help=_EXAMPLE)
        type = _type(cx, d, scope)
        size = type.size
        if not isinstance(size, int) or size > MAX_ELEMENTS:
            what = f"the constant `{d.name}` has {size:,} elements; of a file it may have {MAX_ELEMENTS:,}"
            raise error("E0502", what, d.span, help="what is larger is a `state`, to be loaded with the parameters")
        try:
            if path not in self._content:
                self._content[path] = read_numbers(path)
                self.digests[path] = sha256(self._content[path]).hexdigest()
            arrays = cx.program.settings.arrays
            if arrays is None:
                raise OSError("no files of numbers are read here")
            self._values[id(d)] = arrays(path, self._content[path], member, d.name, type)
        except NncError as e:
            told = e.diagnostics[0]
            raise error("E0206", told.message, call.span, help=next(iter(told.help), None)) from None
        except OSError as e:
            reason = e.strerror or str(e)
            raise error("E0206", f"{path}: {reason[:1].lower()}{reason[1:]}", call.span) from None

    def value(self, cx: Context, d: ast.Const, scope: Scope) -> Value:
        """The value of a constant of a tensor type."""
        type = _type(cx, d, scope)
        if id(d) in self._values:
            return cx.emit("constant", span=d.span, values=self._values[id(d)], type=type)
        value = cx.evaluate(d.value, scope)
        found = tensor(cx, value, d.value.span, None if isinstance(value, Tensor) else type.dtype)
        if found.type != type:
            raise error("E0301", f"`{d.name}` is declared {type}, but its value is {found.type}", d.value.span)
        return found

    @staticmethod
    def _named(cx: Context, call: ast.Call, scope: Scope) -> tuple[str, str | None]:
        """The path, relative to the file that says so, and the name of the array in an archive."""
        given = [cx.evaluate(a.value, scope) for a in call.arguments]
        names = [a.name for a in call.arguments]
        if not 1 <= len(given) <= 2 or any(names) or not all(isinstance(v, str) for v in given):
            told = ", ".join(v if isinstance(v, str) else kind(v) for v in given)
            raise error(
                "E0203",
                f"`file` takes a path, and of an .npz the name of an array, not ({told})",
                call.span,
                help=_EXAMPLE,
            )
        source = call.span.source.name
        folder = Path(source).parent if source != "<text>" else Path()
        path, member = str(folder / str(given[0])), str(given[1]) if len(given) > 1 else None
        return path, member


_EXAMPLE = 'write `const t: f32[3, 3] = file("t.npy")`, or `file("all.npz", "t")`'


def _is_file(e: ast.Expr, scope: Scope) -> bool:
    return isinstance(e, ast.Name) and e.id == "file" and scope.lookup("file") is BUILTINS["file"]


def _type(cx: Context, d: ast.Const, scope: Scope) -> TensorType:
    """The declared type, whose sizes are numbers."""
    assert d.type is not None
    shape = []
    for dim in d.type.dims or ():
        if isinstance(dim, ast.Rest):
            raise error("E0305", f"the axes of the constant `{d.name}` must be known", dim.span)
        size = cx.integer(dim, scope, f"a size of `{d.name}`")
        if not isinstance(size, int) or size < 0:
            raise error("E0301", f"a size of the constant `{d.name}` must be a number from 0, not {size}", dim.span)
        shape.append(size)
    type = TensorType(dtype_of(cx, d.type), tuple(shape))
    check_type(type, d.type.span)
    return type
