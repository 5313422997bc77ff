"""All that is wrong with a text: each fault once, nothing that only follows from one, and what is right beside it."""

import json
import re
from pathlib import Path

import pytest

from nnc.compiler.elaborate import Program
from nnc.compiler.settings import Settings
from nnc.dsl import ast
from nnc.dsl.errors import ArgumentError, NncError
from nnc.dsl.source import Source
from nnc.dsl.tree import walk
from nnc.runtime.check.diagnose import diagnose
from nnc.runtime.cli import main

from ..fuzz.mistakes import pair
from ..fuzz.mutants import mutant

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = tuple(
    f"{name}.nn"
    for name in """adaline digits_mlp hopfield linear_regression logistic_regression perceptron tent_map
threshold_neuron two_layer xor""".split()
)  # a check of one takes a tenth of a second
RIGHT = """
model Line(x: f32[B, 2]) -> (y: f32[B]) {
    weight w: f32[2] = 0
    y = x @ w
}
train Line(x, target: f32[B]) {
    loss = mean((y - target)^2)
    optimizer = SGD(lr = 0.1)
}
"""


def said(text: str, **options: object) -> list[tuple[str, int]]:
    """Codes and lines."""
    errors = diagnose(text, **options).errors  # type: ignore[arg-type]
    assert all(len(e.diagnostics) == 1 for e in errors)
    return [(e.code, e.span.position[0] if e.span is not None else 0) for e in errors]


def text_of(case: Path) -> str:
    return case.read_text("utf-8").partition("\n")[2].partition("## expect\n")[0]


def test_what_is_right_has_a_tree_and_a_program():
    found = diagnose(RIGHT)
    assert found.errors == () and found.warnings == ()
    assert [type(d) for d in found.tree.definitions] == [ast.Layer, ast.Train]
    assert found.program is not None and list(found.program.variables) == [
        "Line.w",
        "train/t",
        "train/epoch",
        "train/steps",
    ]


def test_what_is_wrong_has_the_rest_of_both():
    found = diagnose(RIGHT.replace("= mean(", "= mean)") + "const k = 3 +\nfn f(x) = x\n")
    assert [e.code for e in found.errors] == ["E0103", "E0101"]
    assert [d.name for d in found.tree.definitions if isinstance(d, ast.Layer | ast.Function)] == ["Line", "f"]
    assert sum(isinstance(n, ast.Unread) for n in walk(found.tree)) == 2
    assert found.program is not None and "Line.w" in found.program.variables


def test_the_command_says_five_errors_in_their_order(tmp_path, capfd):
    file = tmp_path / "five.nn"
    file.write_text(text_of(GOLDEN / "check" / "five_errors.case"))
    assert main(["check", str(file)]) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.endswith("\n5 errors\n")
    lines = [int(n) for n in re.findall(r"--> .*five\.nn:(\d+):", err)]
    assert len(lines) == 5 and lines == sorted(lines)
    assert main(["check", str(file), "--json"]) == 1
    out, err = capfd.readouterr()
    assert [d["labels"][0]["line"] for d in json.loads(out)["diagnostics"]] == lines and err == ""


CASES = [p for p in sorted((GOLDEN / "errors").glob("*.case")) if "#~ E0502" not in p.read_text("utf-8")]


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_what_a_compilation_refuses_is_told_and_nothing_that_follows(case, monkeypatch):
    monkeypatch.chdir(case.parent)
    text = text_of(case)
    marks = [(n, re.findall(r"E\d{4}", m)) for n, line in enumerate(text.split("\n"), 1)
             for m in re.findall(r"#~((?: E\d{4})+)", line)]  # fmt: skip
    announced = {(code, n) for n, codes in marks for code in codes}
    errors = [e for e in diagnose(text, Path("input.nn")).errors if e.span is None or e.span.source.name == "input.nn"]
    assert {(e.code, e.span.position[0] if e.span is not None else 0) for e in errors} == announced


def test_both_of_two_mistakes_are_told_and_no_third():
    pairs = [pair(0, k, SMALL) for k in range(30)]
    lost = [(p.file, p.mistakes, p.alone, p.both) for p in pairs if p.lost]
    more = [(p.file, p.mistakes, p.more) for p in pairs if p.more]
    assert len(lost) <= 3, lost
    assert len(more) <= 3, more


def test_any_text_is_answered():
    for k in range(20):
        for e in diagnose(mutant(5, k)[1]).errors:
            assert str(e) and not e.code.startswith("E09")


def test_a_name_that_is_unknown_is_told_once():
    text = "fn f(x: f32[B]) = x + nothing\nfn g(x: f32[B]) = nothing * f(x)\nexport e(x: f32[B]) = g(x) - nothing"
    assert said(text) == [("E0201", 1)]


def test_a_size_that_only_data_know_is_taken_from_them(tmp_path):
    text = "model M(x: f32[B, D]) -> (y: f32[B]) { weight w: f32[D] = 0\n weight v: f32[D] = 0\n y = x @ w + x @ v }\n"
    train = 'train M(x, y: f32[B]) { loss = mean(y)\n optimizer = SGD(lr = 0.1)\n data = csv("a.csv", target = "y") }\n'
    (tmp_path / "a.csv").write_text("a,b,y\n1,2,3\n2,3,4\n")
    assert said(text) == [("E0305", 1)]  # one size, however many need it
    assert said(text, options=Settings(sizes={"D": 2})) == []
    path = tmp_path / "m.nn"
    assert [e.code for e in diagnose(text + train, path).errors] == []
    assert [e.code for e in diagnose(text + train.replace("mean(y)", "mean(q)"), path).errors] == ["E0201"]
    (tmp_path / "a.csv").unlink()
    assert [e.code for e in diagnose(text + train, path).errors] == ["E0620"]  # and not the size as well


def test_poison_warns_of_nothing():
    text = 'fn f(x: f32[3]) {\n warn(size(x) > limit, "too many")\n warn(1 < 2, "always")\n return x\n}'
    found = diagnose(text)
    assert [e.code for e in found.errors] == ["E0201"] and len(found.warnings) == 1 and "always" in found.warnings[0]


def test_wrong_options_are_the_callers():
    with pytest.raises(ArgumentError):
        diagnose(RIGHT, options=Settings(dtype="f16"))
    with pytest.raises(ArgumentError):
        diagnose(RIGHT, options=Settings(sizes={"nothing": 3}))


def test_a_compilation_ends_at_its_first_error():
    text = "fn f(x: f32[B]) = nothing\nfn g(x: f32[B]) = nobody\nexport e(x: f32[B]) = f(x) + g(x)"
    program = Program(Source("a.nn", text), Settings())
    with pytest.raises(NncError) as e:
        program.graph("e")
    assert len(e.value.diagnostics) == 1 and e.value.span is not None and e.value.span.text == "nothing"
