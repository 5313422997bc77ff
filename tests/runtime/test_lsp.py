"""The language server as an editor meets it: a process, a session over stdio, every feature, also while the text does
not parse. Latencies are printed (`pytest -s`), never judged."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pygls")

ROOT = Path(__file__).parents[2]
TIMEOUT = 240  # seconds for an answer that may never come
NNC = [sys.executable, "-c", "from nnc.runtime.cli import entry_point; entry_point()", "lsp"]

NET = """\
# A small network.
hyper width: int = 8 in [4, 8]

# Twice what it is given.
fn double(x: f32[*s]) -> f32[*s] = 2 * x

layer Block(x: f32[B, D], out: int) -> f32[B, out] {
    h = x |> hidden: Dense(out)
    return double(relu(h))
}

model Net(x: f32[B, 4]) -> (logits: f32[B, 3]) {
    h = x |> Block(width)
    logits = h
        |> Block(6)
        |> Dense(3)
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(logits, label))
    metric accuracy = mean(argmax(logits) == label)
    optimizer = Adam(lr = 1e-3)
    data = csv("a.csv", target = "label")
    epochs = 3
}

test "doubles" {
    expect double([1.0, 2.0]) == [2.0, 4.0]
}
"""
USER = 'from "net.nn" import Net, double\n\nexport twice(x: f32[B, 4]) -> f32[B, 3] = double(Net(x))\n'


class Client:
    """An editor: it asks, and keeps what it is told."""

    def __init__(self, folder: Path):
        env = {**os.environ, "NNC_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            NNC, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        self.spent: list[tuple[str, float]] = []
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._asked = 0
        threading.Thread(target=self._listen, daemon=True).start()
        options = {"pause": 0.02, "rest": 0.05, "measure": True}
        capabilities = {"general": {"positionEncodings": ["utf-16"]}}
        self.can = self.ask(
            "initialize",
            {
                "processId": None,
                "rootUri": folder.as_uri(),
                "capabilities": capabilities,
                "initializationOptions": options,
            },
        )["capabilities"]
        self.tell("initialized", {})

    def _listen(self) -> None:
        out = self.process.stdout
        assert out is not None
        while header := out.readline():
            length = int(header.split(b":")[1])
            while out.readline().strip():
                pass
            self._messages.put(json.loads(out.read(length)))

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str, params: Any, refused: bool = False) -> Any:
        self._asked += 1
        began = time.perf_counter()
        self._send({"id": self._asked, "method": method, "params": params})
        while True:
            message = self._messages.get(timeout=TIMEOUT)
            if message.get("id") == self._asked and "method" not in message:
                break
            self._keep(message)
        self.spent.append((method, 1000 * (time.perf_counter() - began)))
        if refused:
            return message["error"]["message"]
        assert "error" not in message, message
        return message["result"]

    def _keep(self, message: dict[str, Any]) -> None:
        if message.get("method") == "telemetry/event":
            self.spent.append((f"{message['params']['what']}, CPU", message["params"]["cpu"]))
        self.told.put(message)

    def until(self, method: str, what: Any) -> Any:
        """The parameters of the next message of this kind for which `what` holds."""
        while True:
            message = self.told.get() if not self.told.empty() else None
            if message is None:
                self._keep(self._messages.get(timeout=TIMEOUT))
                continue
            assert message.get("method") != "window/logMessage", message
            if message.get("method") == method and what(message["params"]):
                return message["params"]


class File:
    """One open file, and where its words are."""

    def __init__(self, client: Client, path: Path, text: str):
        self.client, self.path, self.text, self.version = client, path, text, 1
        self.uri = path.as_uri()
        self.id = {"uri": self.uri}
        path.write_text(text)
        item = {**self.id, "languageId": "nn", "version": 1, "text": text}
        client.tell("textDocument/didOpen", {"textDocument": item})

    def at(self, text: str, into: int = 0, nth: int = 0) -> dict[str, int]:
        """The position `into` the nth place where a text stands."""
        start = -1
        for _ in range(nth + 1):
            start = self.text.index(text, start + 1)
        return self.position(start + into)

    def position(self, offset: int) -> dict[str, int]:
        before = self.text[:offset]
        line = before.rpartition("\n")[2]
        return {"line": before.count("\n"), "character": len(line.encode("utf-16-le")) // 2}

    def offset(self, position: dict[str, int]) -> int:
        lines = self.text.split("\n")
        units = lines[position["line"]].encode("utf-16-le")[: 2 * position["character"]]
        return sum(len(x) + 1 for x in lines[: position["line"]]) + len(units.decode("utf-16-le"))

    def ask(self, what: str, position: dict[str, int] | None = None, refused: bool = False, **more: Any) -> Any:
        params = {"textDocument": self.id, **({"position": position} if position else {}), **more}
        return self.client.ask(f"textDocument/{what}", params, refused)

    def change(self, old: str, new: str) -> None:
        """Replace a stretch of the text, as an editor does: by its range."""
        start, self.version = self.text.index(old), self.version + 1
        range = {"start": self.position(start), "end": self.position(start + len(old))}
        self.text = self.text.replace(old, new, 1)
        self.client.tell(
            "textDocument/didChange",
            {"textDocument": {**self.id, "version": self.version}, "contentChanges": [{"range": range, "text": new}]},
        )

    def errors(self, what: Any = lambda found: True) -> list[dict[str, Any]]:
        """The next diagnostics of the text as it is for which `what` holds."""
        params = self.client.until(
            "textDocument/publishDiagnostics",
            lambda p: p["uri"] == self.uri and p["version"] == self.version and what(p["diagnostics"]),
        )
        found: list[dict[str, Any]] = params["diagnostics"]
        return found

    def checked(self) -> None:
        """Wait for the check after the last change."""
        wanted = {"what": "check", "file": self.path.name, "version": self.version}
        self.client.until("telemetry/event", lambda p: wanted.items() <= p.items())

    def spans(self, locations: list[dict[str, Any]]) -> list[str]:
        """`line:text` of places in this file."""
        out = []
        for x in locations:
            if x.get("uri", self.uri) == self.uri:
                r = x["range"]
                text = self.text[self.offset(r["start"]) : self.offset(r["end"])]
                out.append(f"{r['start']['line'] + 1}:{text}")
        return out

    def edited(self, edits: list[dict[str, Any]]) -> str:
        text = self.text
        for e in sorted(edits, key=lambda e: -self.offset(e["range"]["start"])):
            text = text[: self.offset(e["range"]["start"])] + e["newText"] + text[self.offset(e["range"]["end"]) :]
        return text


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    client = Client(tmp_path_factory.mktemp("nets"))
    yield client
    client.ask("shutdown", None)
    client.tell("exit", None)
    assert client.process.wait(TIMEOUT) == 0
    by_kind: dict[str, list[float]] = {}
    for what, spent in client.spent:
        by_kind.setdefault(what, []).append(spent)
    print("\nmilliseconds: most, count")
    for what, all_spent in sorted(by_kind.items()):
        print(f"{what:45} {max(all_spent):8.1f} {len(all_spent):4}")


@pytest.fixture(scope="module")
def net(client: Client, tmp_path_factory: pytest.TempPathFactory) -> File:
    folder = tmp_path_factory.mktemp("net")
    (folder / "user.nn").write_text(USER)
    file = File(client, folder / "net.nn", NET)
    file.checked()
    return file


BROKEN = ("    return double(relu(h))\n", "    return double(relu(h) + \n")  # in Block


@pytest.fixture(params=["whole", "broken elsewhere"])
def file(request: pytest.FixtureRequest, net: File) -> File:
    """The file as it is, and while a definition of it does not parse."""
    if request.param != "whole":
        net.change(*BROKEN)
        assert net.errors(lambda found: found)[0]["code"] == "E0103"
        yield net
        net.change(BROKEN[1], BROKEN[0])
        net.errors(lambda found: not found)
        net.checked()
    else:
        yield net


def _at_in(file: File, text: str, word: str, **more: Any) -> dict[str, int]:
    return file.at(text, text.index(word), **more)


def test_hover_tells_shape_parameters_formula_and_source(file: File) -> None:
    said = file.ask("hover", _at_in(file, "Dense(3)", "Dense"))["contents"]["value"]
    assert "layer Dense(x: f32[*lead, D], out: int" in said
    assert "f32[B, 3]" in said and "`Net.dense_1` 21" in said
    assert "y = x W' + b" in said and "weight W: f32[out, D]" in said and "std/layers.nn" in said
    assert "h: f32[B, 8]" in file.ask("hover", _at_in(file, "logits = h\n", "h\n"))["contents"]["value"]
    said = file.ask("hover", _at_in(file, "    h = x |> Block(width)", "h"))["contents"]["value"]
    assert "h: f32[B, 8]" in said
    assert "width: int = 8" in file.ask("hover", _at_in(file, "Block(width)", "width"))["contents"]["value"]
    assert "mean" in file.ask("hover", _at_in(file, "mean(argmax", "mean"))["contents"]["value"]
    assert "passes over" in file.ask("hover", file.at("epochs"))["contents"]["value"]
    assert "table" in file.ask("hover", file.at("csv("))["contents"]["value"]


def test_definitions_are_found_here_in_the_library_and_in_other_files(file: File, client: Client) -> None:
    assert file.spans([file.ask("definition", _at_in(file, "Block(6)", "Block"))]) == ["7:Block"]
    assert file.spans([file.ask("definition", _at_in(file, "mean(argmax(logits)", "logits"))]) == ["14:logits"]
    library = file.ask("definition", _at_in(file, "cross_entropy(logits", "cross"))
    assert library["uri"].endswith("dsl/std/losses.nn")
    line = Path(library["uri"].removeprefix("file://")).read_text().split("\n")[library["range"]["start"]["line"]]
    assert line.startswith("fn cross_entropy(")
    assert file.ask("definition", _at_in(file, "Dense(3)", "("))["uri"].endswith("layers.nn")  # right behind the name
    assert file.ask("definition", _at_in(file, "epochs = 3", "3")) is None


def test_references_are_found_in_other_files_too(file: File) -> None:
    found = file.ask("references", _at_in(file, "fn double", "double"), context={"includeDeclaration": True})
    assert sorted(file.spans(found))[:2] == ["28:double", "5:double"]
    assert sum(x["uri"].endswith("user.nn") for x in found) == 2
    without = file.ask("references", _at_in(file, "fn double", "double"), context={"includeDeclaration": False})
    assert len(without) == len(found) - 1
    assert len(file.spans(file.ask("documentHighlight", file.at("width")))) == 2


def test_names_are_changed_everywhere_or_not_at_all(net: File) -> None:
    at = _at_in(net, "fn double", "double")
    assert net.spans([{"range": net.ask("prepareRename", at)}]) == ["5:double"]
    edit = net.ask("rename", at, newName="twice_as_much")["changes"]
    assert net.edited(edit[net.uri]) == NET.replace("double(", "twice_as_much(")
    (other,) = (u for u in edit if u != net.uri)
    assert len(edit[other]) == 2
    assert "means something else" in net.ask("rename", at, newName="relu", refused=True)
    assert "no name" in net.ask("rename", at, newName="if", refused=True)
    h = net.at("h = x |> Block(width)")
    text = net.edited(net.ask("rename", h, newName="z")["changes"][net.uri])
    assert text == NET.replace("h = x |> Block(width)", "z = x |> Block(width)").replace("= h\n", "= z\n")
    x = _at_in(net, "(x: f32[B, 4])", "x")
    text = net.edited(net.ask("rename", x, newName="image")["changes"][net.uri])
    assert "model Net(image: f32[B, 4])" in text and "train Net(image, label" in text
    result = _at_in(net, "(logits: f32[B, 3])", "logits")
    text = net.edited(net.ask("rename", result, newName="scores")["changes"][net.uri])
    assert "logits" not in text and text.count("scores") == 4
    assert net.ask("prepareRename", _at_in(net, "Dense(3)", "Dense")) is None
    assert "standard library" in net.ask("rename", _at_in(net, "Dense(3)", "Dense"), newName="D", refused=True)


def test_a_name_in_broken_text_is_not_changed(net: File) -> None:
    net.change(*BROKEN)
    said = net.ask("rename", _at_in(net, "fn double", "double"), newName="twice_as_much", refused=True)
    assert "does not parse" in said
    net.change(BROKEN[1], BROKEN[0])


def _complete(file: File, position: dict[str, int]) -> dict[str, dict[str, Any]]:
    return {i["label"]: i for i in file.ask("completion", position)}


def test_completion_knows_names_and_named_arguments(file: File, client: Client) -> None:
    inside = _complete(file, _at_in(file, "Dense(3)", ")"))
    assert "width" in inside and "h" in inside and inside["h"]["detail"] == "f32[B, 8]"
    file.change("Dense(3)", "Dense(3, )")
    here = _complete(file, _at_in(file, "Dense(3, )", ")"))
    assert [n for n in here if here[n].get("insertText")] == ["bias", "init"]
    assert {"relu", "Block", "double", "mean", "Dense"} <= here.keys()
    documented = client.ask("completionItem/resolve", here["relu"])
    assert "relu" in documented["documentation"]["value"]
    help = file.ask("signatureHelp", _at_in(file, "Dense(3, )", ")"))
    assert help["activeParameter"] == 2 and help["signatures"][0]["parameters"][2]["label"] == "bias: bool = true"
    file.change("Dense(3, )", "Dense(3, bias = )")
    assert file.ask("signatureHelp", _at_in(file, "bias = )", ")"))["activeParameter"] == 2
    file.change("Dense(3, bias = )", "Dense(3)")
    file.change("    epochs = 3\n", "    epochs = 3\n    \n")
    train = _complete(file, _at_in(file, "    epochs = 3\n    \n", "\n    \n", nth=0) | {"character": 14})
    assert "logits" in train
    line = file.at("    \n", 4)
    assert {"batch", "patience", "metric", "accuracy"} <= _complete(file, line).keys()
    file.change("    epochs = 3\n    \n", "    epochs = 3\n")
    assert {"fn", "model", "train"} == {"fn", "model", "train"} & _complete(file, file.position(len(file.text))).keys()
    assert "relu" not in _complete(file, file.at("small network"))  # a comment


def test_parts_of_a_model_are_completed(net: File) -> None:
    net.change("    expect double", "    expect count(params(Net.)) == 1\n    expect double")
    found = _complete(net, _at_in(net, "Net.)", ")"))
    assert {"dense_1", "block_1", "block_2"} <= found.keys()
    net.change("    expect count(params(Net.)) == 1\n", "")


def test_a_part_with_a_number_is_found(net: File) -> None:
    net.change("    expect double", "    expect count(params(Net.dense_1)) == 21\n    expect double")
    assert net.spans([net.ask("definition", _at_in(net, "Net.dense_1", "dense"))]) == ["16:Dense(3)"]
    net.change("    expect count(params(Net.dense_1)) == 21\n", "")


def test_words_are_classified(file: File, client: Client) -> None:
    legend = client.can["semanticTokensProvider"]["legend"]
    data = file.ask("semanticTokens/full")["data"]
    line = column = 0
    found = {}
    for k in range(0, len(data), 5):
        down, on, length, kind, bits = data[k : k + 5]
        line, column = line + down, on if down else column + on
        start = file.offset({"line": line, "character": column})
        found.setdefault(file.text[start : start + length], set()).add(legend["tokenTypes"][kind])
        assert bits < 2 ** len(legend["tokenModifiers"])
    assert found["model"] == {"keyword"} and found["# A small network."] == {"comment"}
    assert found["Block"] == {"class"} and found["relu"] == {"function"} and found["x"] == {"parameter"}
    assert found["B"] == {"typeParameter"} and found["f32"] == {"type"} and found["hidden"] == {"label"}
    assert found["epochs"] == {"property"} and found["logits"] == {"variable"} and found["1e-3"] == {"number"}


def test_layout_is_mended(file: File) -> None:
    file.change("    data = csv", "      data   =   csv")
    text = file.edited(file.ask("formatting", options={"tabSize": 4, "insertSpaces": True}))
    assert "    data      = csv" in text and "      data" not in text
    file.change("      data   =   csv", "    data = csv")


def test_shapes_are_shown(file: File) -> None:
    whole = {"start": file.position(0), "end": file.position(len(file.text))}
    found = {(h["position"]["line"] + 1, h["label"]) for h in file.ask("inlayHint", range=whole)}
    assert {(8, ": f32[B, 8|6]"), (13, ": f32[B, 8]"), (14, ": f32[B, 3]"), (15, ": f32[B, 6]")} <= found


def test_lenses_run_the_commands(file: File) -> None:
    found = [(x["range"]["start"]["line"] + 1, x["command"]) for x in file.ask("codeLens")]
    said = {(line, c["arguments"][0]) for line, c in found}
    assert said == {(12, "show"), (19, "train"), (27, "test")}
    assert all(c["command"] == "nnc.run" and c["arguments"][1] == str(file.path) for _, c in found)


def test_the_outline_lists_definitions(file: File) -> None:
    assert {s["name"] for s in file.ask("documentSymbol")} == {"width", "double", "Block", "Net"}


def test_errors_have_labels_and_quick_fixes(net: File) -> None:
    net.change("relu(h)", "rellu(h)")
    (found,) = net.errors(lambda found: found)
    assert found["code"] == "E0201" and "rellu" in found["message"] and "did you mean `relu`?" in found["message"]
    assert net.spans([found]) == ["9:rellu"]
    (action,) = net.ask("codeAction", range=found["range"], context={"diagnostics": [found]})
    assert action["title"] == "write `relu`" and action["kind"] == "quickfix"
    assert net.edited(action["edit"]["changes"][net.uri]) == NET
    net.change("rellu(h)", "relu(h)")
    assert net.errors(lambda found: not found) == []


def test_several_errors_are_told_at_once(net: File) -> None:
    net.change("2 * x\n", "2 ** x\n")
    net.change("epochs = 3", "epochs = 1_0")
    found = net.errors(lambda found: len(found) > 1)
    assert [d["code"] for d in found] == ["E0102", "E0105"]
    for d in found:
        (action,) = net.ask("codeAction", range=d["range"], context={"diagnostics": [d]})
        assert action["edit"]["changes"][net.uri][0]["newText"] in ("^", "10")
    net.change("2 ** x\n", "2 * x\n")
    net.change("epochs = 1_0", "epochs = 3")
    net.errors(lambda found: not found)
    net.checked()


def test_several_wrong_definitions_do_not_hide_one_another(net: File) -> None:
    net.change("relu(h)", "rellu(h)")
    net.change("accuracy = mean(", "accuracy = meen(")
    net.change("[2.0, 4.0]\n", "[2.0, 4.0\n")
    found = net.errors(lambda found: len(found) > 2)
    assert sorted((d["code"], *net.spans([d])) for d in found) == [
        ("E0103", "28:["), ("E0201", "21:meen"), ("E0201", "9:rellu")
    ]  # fmt: skip
    net.change("rellu(h)", "relu(h)")
    net.change("meen(", "mean(")
    net.change("[2.0, 4.0\n", "[2.0, 4.0]\n")
    net.errors(lambda found: not found)
    net.checked()


def test_without_pygls_it_is_said_how_to_install_it() -> None:
    hidden = "import sys; sys.modules['pygls'] = None; from nnc.runtime.cli import main; sys.exit(main(['lsp']))"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1 and "pip install 'nnc[lsp]'" in done.stderr


def test_columns_are_counted_as_the_editor_counts(client: Client, tmp_path: Path) -> None:
    text = 'test "𝒯 is two units" { expect relu(1.0) == 1.0 }\nfn f(λ: f32[B]) -> f32[B] = λ * 2\n'
    file = File(client, tmp_path / "wide.nn", text)
    assert file.spans([file.ask("definition", file.at("λ *"))]) == ["2:λ"]
    assert "fn relu" in file.ask("hover", file.at("relu(1", 4))["contents"]["value"]
    client.tell("textDocument/didClose", {"textDocument": file.id})


def test_what_is_open_counts_not_what_is_on_disk(net: File, client: Client) -> None:
    user = File(client, net.path.with_name("user.nn"), USER)
    net.change("fn double(x: f32[*s])", "fn double(value: f32[*s])")
    assert "value: f32" in user.ask("hover", _at_in(user, "= double(", "double"))["contents"]["value"]
    assert user.ask("definition", _at_in(user, "import Net", "Net"))["uri"] == net.uri
    net.change("fn double(value: f32[*s])", "fn double(x: f32[*s])")
    client.tell("textDocument/didClose", {"textDocument": user.id})


def test_a_file_that_never_parsed_is_served(client: Client, tmp_path: Path) -> None:
    text = "fn f(x: f32[B]) -> f32[B] = 2 * x\n\nmodel Net(x: f32[B, 4]) -> (y: f32[B]) {\n    y = f(x[:, 0)\n}\n"
    file = File(client, tmp_path / "new.nn", text)
    assert [d["code"] for d in file.errors()] == ["E0103"]
    assert "fn f(x: f32[B])" in file.ask("hover", file.at("f(x:"))["contents"]["value"]
    assert "f" in _complete(file, file.at("x[:, 0"))
    assert file.ask("signatureHelp", _at_in(file, "f(x[:", "x"))["signatures"][0]["label"].startswith("fn f")
    client.tell("textDocument/didClose", {"textDocument": file.id})


def test_an_edit_of_resnet20(client: Client, tmp_path: Path) -> None:
    """Its latencies are what is wanted: they are printed."""
    file = File(client, tmp_path / "resnet20.nn", (ROOT / "models" / "resnet20.nn").read_text())
    file.checked()
    before = len(client.spent)
    for old, new in (("Block(64)", "Block(65)"), ("Block(65)", "Block(64)"), ("1e-4 * l2", "1e-3 * l2")):
        file.change(old, new)
        file.errors()
        file.ask("completion", file.at("global_avg_pool"))
        file.ask("hover", file.at("global_avg_pool"))
        file.ask("semanticTokens/full")
    file.checked()
    print("\nresnet20.nn, milliseconds:", *(f"{what} {spent:.0f}" for what, spent in client.spent[before:]), sep="\n  ")
    client.tell("textDocument/didClose", {"textDocument": file.id})
