"""The extension for VS Code: its grammar is that of Pygments, it can be packaged, and it starts `nnc lsp`.

What needs packages of npm is skipped where these are not at hand: `npm install vscode-textmate vscode-oniguruma
@vscode/vsce` in a folder above the tests, or anywhere with NODE_PATH=FOLDER/node_modules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from nnc.dsl.highlight import RULES
from nnc.runtime.editor import textmate

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "runtime" / "editor" / "vscode"
FILES = sorted([*(ROOT / "models").glob("*.nn"), *(ROOT / "dsl" / "std").glob("*.nn")])

# `vscode` and its client are the editor's own: here they only say what they were told
STARTS = """
const Module = require("node:module");
const load = Module._load;
const told = {};
class LanguageClient {
  constructor(id, name, server, options) { Object.assign(told, { server, options }); }
  async start() { told.started = true; }
  async stop() { told.stopped = true; }
}
const terminal = { name: "other", show() {}, sendText: (text) => { told.text = text; } };
const vscode = {
  workspace: { getConfiguration: () => ({ get: () => ["python", "-m", "nnc"] }) },
  commands: { registerCommand: (name, run) => { told.command = name; vscode.run = run; } },
  window: { terminals: [], createTerminal: () => terminal },
};
Module._load = (name, ...more) =>
  name === "vscode" ? vscode : name === "vscode-languageclient/node" ? { LanguageClient } : load(name, ...more);
const extension = require(process.argv[1]);
extension.activate({ subscriptions: [] }).then(async () => {
  vscode.run("train", "/a folder/it's.nn");
  await extension.deactivate();
  process.stdout.write(JSON.stringify(told));
});
"""


def _node(*arguments: str, cwd: Path = ROOT) -> str:
    return subprocess.run(["node", *arguments], check=True, capture_output=True, text=True, cwd=cwd, timeout=120).stdout


def _needs(*packages: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node here")
    for package in packages:
        try:
            _node("-e", f"require.resolve('{package}/package.json')", cwd=ROOT / "tests")
        except subprocess.CalledProcessError:
            pytest.skip(f"no {package} of npm here")


def test_the_grammar_is_made_from_the_rules(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        textmate.FILE.write_text(textmate.text(), "utf-8")
    assert textmate.FILE.read_text("utf-8") == textmate.text()
    assert {k for _, kinds in RULES for k in ([kinds] if isinstance(kinds, str) else kinds)} - {"space"} == {
        *textmate.SCOPES
    }


def test_the_extension_names_files_that_are_there() -> None:
    package = json.loads((EXTENSION / "package.json").read_text("utf-8"))
    json.loads((EXTENSION / "language-configuration.json").read_text("utf-8"))
    told = package["contributes"]
    for path in (package["main"], told["languages"][0]["configuration"], told["grammars"][0]["path"]):
        assert (EXTENSION / path).is_file()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version is not None and package["version"] == version[1]


def test_textmate_colours_as_pygments_does() -> None:
    pytest.importorskip("pygments")
    _needs("vscode-textmate", "vscode-oniguruma")
    from nnc.dsl.lexer import _TOKENS, NnLexer

    kinds = {token: kind for kind, token in _TOKENS.items()}
    found = json.loads(_node("tests/runtime/textmate.mjs", str(textmate.FILE), *map(str, FILES)))
    for path, stretches in zip(FILES, found, strict=True):
        text = path.read_text("utf-8")
        wanted: list[str] = []
        for token, word in NnLexer(ensurenl=False, stripnl=False).get_tokens(text):
            scope = textmate.SCOPES.get(kinds[token])
            wanted += [f"{scope}.nn" if scope else ""] * len(word)
        shown = [""] * len(text)
        for start, end, scope in stretches:
            shown[start:end] = [scope] * (end - start)
        wrong = [k for k in range(len(text)) if shown[k] != wanted[k] and not text[k].isspace()]
        assert not wrong, f"{path.name}: {text[wrong[0] - 20 : wrong[0] + 20]!r}: {shown[wrong[0]]}, {wanted[wrong[0]]}"


def test_the_extension_starts_the_server_and_runs_lenses() -> None:
    _needs()
    told = json.loads(_node("-e", STARTS, str(EXTENSION / "extension.js")))
    assert told["server"] == {"command": "python", "args": ["-m", "nnc", "lsp"]}
    assert told["options"]["documentSelector"] == [{"language": "nn"}]
    assert told["started"] and told["stopped"] and told["command"] == "nnc.run"
    assert told["text"] == "python -m nnc train '/a folder/it'\\''s.nn'"


def test_the_extension_can_be_packaged(tmp_path: Path) -> None:
    _needs("@vscode/vsce")
    folder = tmp_path / "vscode"
    shutil.copytree(EXTENSION, folder, ignore=shutil.ignore_patterns("node_modules"))
    vsce = _node("-p", "require.resolve('@vscode/vsce/package.json')", cwd=ROOT / "tests").strip()
    vsce = str(Path(vsce).parent / "vsce")
    package = ["package", "--allow-missing-repository", "--skip-license", "--no-dependencies", "-o", "nnc.vsix"]
    subprocess.run(
        ["node", vsce, *package], check=True, capture_output=True, cwd=folder, env={**os.environ}, timeout=120
    )
    with zipfile.ZipFile(folder / "nnc.vsix") as archive:
        names = set(archive.namelist())
    assert {f"extension/{f}" for f in ("package.json", "extension.js", "syntaxes/nn.tmLanguage.json")} <= names
