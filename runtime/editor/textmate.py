"""The TextMate grammar of `.nn` files, made from the rules that Pygments has: what VS Code colours text by until the
language server answers. `python -m nnc.runtime.editor.textmate` writes it to where the extension has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...dsl.highlight import RULES

FILE = Path(__file__).parent / "vscode" / "syntaxes" / "nn.tmLanguage.json"
SCOPES = {
    "comment": "comment.line.number-sign", "declaration": "keyword.other.declaration", "keyword": "keyword.control",
    "namespace": "keyword.control.import", "function": "entity.name.function", "class": "entity.name.type.class",
    "label": "entity.name.tag", "attribute": "variable.other.member", "name": "variable.other",
    "constant": "constant.language", "logic": "keyword.operator.word", "type": "storage.type",
    "float": "constant.numeric.float", "integer": "constant.numeric.integer", "string": "string.quoted.double",
    "operator": "keyword.operator", "punctuation": "punctuation",
}  # fmt: skip


def grammar() -> dict[str, Any]:
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "nnc",
        "scopeName": "source.nn",
        "fileTypes": ["nn"],
        "patterns": [_pattern(p, kinds) for p, kinds in RULES],
    }


def _pattern(pattern: str, kinds: str | tuple[str, ...]) -> dict[str, Any]:
    if isinstance(kinds, str):
        return {"match": pattern, "name": f"{SCOPES[kinds]}.nn"}
    named = {str(k): {"name": f"{SCOPES[kind]}.nn"} for k, kind in enumerate(kinds, 1) if kind in SCOPES}
    return {"match": pattern, "captures": named}


def text() -> str:
    return json.dumps(grammar(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
