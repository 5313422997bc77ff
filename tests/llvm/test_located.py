"""Instructions that say of which line of the loops they are: the code is the same, and the lines are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnc.compiler.llvm import emit
from nnc.compiler.llvm.located import Located, lines
from nnc.compiler.loops.ir import walk
from nnc.compiler.loops.text import print_kernel
from nnc.compiler.native import objects
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.parser import read_source

MODELS = Path(__file__).parents[2] / "models"


def plain(text: str) -> str:
    """Assembly without what is said of places."""
    text = re.sub(r"[ \t]*#[^\n]*", "", text)
    return re.sub(r"(?m)^(\s*\.(loc|file|cfi_)[^\n]*|\.Ltmp\d+:|\.Lfunc_(begin|end)\d+:|\s*)\n", "", text)


@pytest.mark.parametrize(("name", "entry"), [("lenet5", "predict"), ("digits_mlp", "train"), ("char_lstm", "predict")])
def test_code_is_the_same_whether_or_not_it_is_located(name: str, entry: str) -> None:
    session = Session(read_source(str(MODELS / f"{name}.nn")), Settings(cache=False))
    module = session.stages(entry).lowered.module
    with_places = emit(module, session.target, located=Located())
    without = emit(module, session.target)
    assert re.sub(r",? !dbg !\d+", "", with_places).startswith(without) and "!dbg" not in without
    found, wanted = (plain(objects.assembly(ir, session.target)) for ir in (with_places, without))
    assert found == wanted and len(found) > 10_000


def test_lines_are_those_of_the_text() -> None:
    session = Session(read_source(str(MODELS / "lenet5.nn")), Settings(cache=False))
    words = {
        "Let": "let ",
        "For": "for ",
        "If": "if ",
        "Register": "register ",
        "Check": "check ",
        "Prefetch": "prefet",
    }
    for kernel in session.stages("train").lowered.module.kernels:
        text = print_kernel(kernel).splitlines()
        at = lines(kernel)
        for s in walk(kernel.body):
            assert text[at[id(s)] - 1].strip().startswith(words.get(type(s).__name__, "")), (kernel.name, s)
