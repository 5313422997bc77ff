"""Golden cases: `golden/STAGE/NAME.case` holds a stage, its input and the output that was read and found right.

    ## passes: cse
    graph @g { ... }
    ## expect
    graph @g { ... }

`pytest --update-golden` rewrites what stands below `## expect`. A stage that fails gives the rendered diagnostics;
every diagnostic about the input must then be announced on the guilty line by `#~ E0301`, which no update writes.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from nnc.dsl.errors import NncError
from nnc.dsl.render import render

HERE = Path(__file__).parent
CASES = sorted((HERE / "golden").rglob("*.case"))

_HEADER = re.compile(r"\A## (?P<stage>\w+)(?:: *(?P<args>.*))?\n")


def _load_stages():
    spec = importlib.util.spec_from_file_location("nnc_test_stages", HERE / "stages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stages = _load_stages()


class Case(NamedTuple):
    stage: str
    args: str
    input: str
    expected: str


def read_case(text: str) -> Case:
    header = _HEADER.match(text)
    assert header, "a case begins with `## stage` or `## stage: arguments`"
    body, separator, expected = text[header.end() :].partition("## expect\n")
    assert separator, "a case has a line `## expect`"
    return Case(header["stage"], (header["args"] or "").strip(), body, expected)


def run_case(case: Case) -> str:
    """The output of a case's stage, with the announced errors checked."""
    announced = [
        (number, code)
        for number, line in enumerate(case.input.split("\n"), 1)
        for mark in re.findall(r"#~((?: E\d{4})+)", line)
        for code in mark.split()
    ]
    try:
        output, found = stages.STAGES[case.stage](case.input, case.args), []
    except NncError as e:
        output = "\n\n".join(render(d) for d in e.diagnostics)
        spans = [(d.span, d.code) for d in e.diagnostics if d.span is not None and d.span.source.name == stages.NAME]
        found = [(span.position[0], code) for span, code in spans]
    assert sorted(found) == sorted(announced), f"found {found}, announced by #~ {announced}\n\n{output}"
    return output.rstrip("\n") + "\n"


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)  # imports and data files of a case lie beside it
    text = path.read_text(encoding="utf-8")
    case = read_case(text)
    output = run_case(case)
    if request.config.getoption("--update-golden"):
        if output != case.expected:
            path.write_text(text[: len(text) - len(case.expected)] + output, encoding="utf-8")
        return
    assert output == case.expected


@pytest.mark.parametrize("rule", stages.RULES)
def test_every_rewrite_rule_has_an_equation_and_a_case_that_it_changes(rule: str) -> None:
    path = HERE / "golden" / "rules" / f"{rule}.case"
    assert path.exists(), f"write a graph below `## rule: {rule}` into {path}, and `pytest --update-golden`"
    case = read_case(path.read_text(encoding="utf-8"))
    assert (case.stage, case.args) == ("rule", rule) and case.expected.startswith("# "), "mathematics above the rule"
    assert not case.expected.endswith(stages.STAGES["graph"](case.input, "")), "the rule does nothing here"


def test_the_runner_notices_what_it_must() -> None:
    """A wrong output, an unannounced error and an error that does not come all fail."""
    assert run_case(read_case("## format\nconst  a=1\n## expect\n")) == "const a = 1\n"
    with pytest.raises(AssertionError, match="announced"):
        run_case(read_case("## parse\nconst a = )\n## expect\n"))
    with pytest.raises(AssertionError, match="announced"):
        run_case(read_case("## parse\nconst a = 1  #~ E0101\n## expect\n"))
    with pytest.raises(AssertionError, match="## expect"):
        read_case("## parse\nconst a = 1\n")
