"""Files to begin with, words that a shell completes, and files that are watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnc.runtime.cli import cli, main
from nnc.runtime.cli.new import TEMPLATES

NNC = [sys.executable, "-c", "from nnc.runtime.cli import entry_point; entry_point()"]


@pytest.fixture
def nnc(tmp_path, tmp_path_factory, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(arguments))
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_checks_and_trains_at_once(nnc, template: str) -> None:
    code, out, err = nnc("new", template)
    assert (code, err) == (0, "") and f"try: nnc check {template}.nn" in out
    assert nnc("check", f"{template}.nn") == (0, f"{template}.nn: no errors\n", "")
    assert nnc("fmt", "--check", f"{template}.nn")[0] == 0
    code, out, err = nnc("train", f"{template}.nn", "--epochs", "1", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 1 and "warning" not in err


def test_nothing_is_written_over(nnc) -> None:
    assert nnc("new", "regression", "deep/line.nn")[0] == 0
    before = Path("deep/line.nn").read_bytes()
    code, out, err = nnc("new", "mlp", "deep/line.nn")
    assert (code, out) == (1, "") and "E0626" in err and Path("deep/line.nn").read_bytes() == before
    Path("deep/line.nn").unlink()
    code, _, err = nnc("new", "regression", "deep/line.nn")  # its table is still there
    assert code == 1 and "deep/data/plane.csv" in err and not Path("deep/line.nn").exists()


def test_what_there_is_and_what_there_is_not(nnc) -> None:
    assert [line.split()[0] for line in nnc("new")[1].splitlines()] == list(TEMPLATES)
    assert list(json.loads(nnc("new", "--json")[1])) == list(TEMPLATES)
    assert "did you mean `convnet`?" in nnc("new", "convnets")[2]
    assert nnc("new", "mlp", "net.txt")[0] == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(nnc, shell: str) -> None:
    script = nnc("completion", shell)[1]
    assert f"_NNC_COMPLETE={shell}_complete" in script
    known = {"COMP_WORDS": "nnc tr", "COMP_CWORD": "1", "_NNC_COMPLETE": "bash_complete"}
    out = subprocess.run(NNC, env={**os.environ, **known}, capture_output=True, text=True, check=True).stdout
    assert out == "plain,train\n"
    for words, found in (("nnc train --ep", "plain,--epochs\n"), ("nnc train ne", "file,ne\n")):
        known |= {"COMP_WORDS": words, "COMP_CWORD": "2"}
        out = subprocess.run(NNC, env={**os.environ, **known}, capture_output=True, text=True, check=True).stdout
        assert out == found


def test_help_has_a_line_for_each_command_in_its_group(nnc) -> None:
    lines = nnc("--help")[1].splitlines()
    listed = [line.split()[0] for line in lines[lines.index("Write:") :] if line.startswith("  ")]
    assert listed == cli.list_commands(None)  # type: ignore[arg-type]
    assert [line for line in lines if line.endswith(":")] == ["Options:", "Write:", "Train:", "Look:", "Ship:"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("evaluate", "eval"), ("sumary", "summary")])
def test_a_command_that_is_not_known(nnc, word: str, meant: str) -> None:
    code, _, err = nnc(word)
    assert code == 2 and f"Did you mean `nnc {meant}`?" in err
    assert "`nnc --help` lists the commands" in nnc("xyzzy")[2]


def until(lines: Callable[[], str], text: str) -> str:
    """What a process prints, up to a line with this text."""
    said = ""
    while text not in said:
        line = lines()
        assert line, said
        said += line
    return said


@pytest.mark.parametrize("command", ["check", "test"])
def test_what_is_watched_is_done_again(nnc, command: str) -> None:
    nnc("new", "regression", "line.nn")
    sound = Path("line.nn").read_text()
    p = subprocess.Popen(
        [*NNC, command, "line.nn", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert p.stdout is not None
    good = {"check": "line.nn: no errors", "test": "2 passed, 0 failed"}[command]
    assert good in until(p.stdout.readline, "waiting for a change")
    for text, said in ((sound.replace("x @ w + b", "x @ v + b"), "E0201"), (sound.replace("{", "", 1), "E0101")):
        Path("line.nn").write_text(text)
        assert said in until(p.stdout.readline, "waiting for a change")
    Path("line.nn").write_text(sound)
    assert good in until(p.stdout.readline, "waiting for a change")
    p.send_signal(signal.SIGINT)
    assert p.stdout.read() == "interrupted\n" and p.wait() == 130
    assert nnc(command, "line.nn", "--watch", "--json")[0] == 2
