"""The page that explains an entry: what it knows of each line is so, and in a browser a click lights all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.graph.nodes import Graph
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source
from nnc.runtime.api import _values
from nnc.runtime.cli import main
from nnc.runtime.explain import document, page
from nnc.runtime.profile import profile

from ..browser import Browser, browsing

MODELS = Path(nnc.__file__).parent / "models"
TWICE = """
fn f(x: f32[N]) -> f32[N] {
    a = exp(x)
    b = exp(x)
    return a + b
}
"""
MACHINE = {"flops": 1e11, "bandwidth": {1 << 28: 1e10}}
SCAN = """
fn f(x: f32[T, D]) -> f32[T, D] {
    s = broadcast(0.0, [D])
    scan t in 0..T {
        s = tanh(x[t] + s)
        ys[t] = s
    }
    return exp(cumsum(ys, axis = 0))
}
"""
Json = dict[str, Any]


def opened(text: str, name: str = "<text>") -> Session:
    return Session(Source(name, text), Settings(cache=False, arrays=_values))


@pytest.fixture(scope="module")
def lenet() -> Session:
    return opened((MODELS / "lenet5.nn").read_text("utf-8"), "lenet5.nn")


@pytest.fixture(scope="module")
def explained(lenet: Session) -> Json:
    return document(lenet, "train", 64)


def texts(found: Json, places: list[int]) -> set[str]:
    return {found["places"][p]["text"] for p in places}


def of_lines(found: Json, places: list[int]) -> set[int]:
    """The lines, from 1, whose text some places are."""
    return {found["places"][p]["at"][0][0] + 1 for p in places}


@pytest.mark.parametrize(("name", "entry"), [("lenet5", "predict"), ("char_lstm", "train"), ("digits_mlp", "train")])
def test_everything_has_a_place(name: str, entry: str) -> None:
    found = document(opened((MODELS / f"{name}.nn").read_text("utf-8"), str(MODELS / f"{name}.nn")), entry)
    rows = found["operators"] + found["derivatives"]
    rows += [r for change in found["passes"] for r in change["before"] + change["after"]]
    rows += [r for e in found["entries"] for s in e["steps"] for r in s["body"] if " = input" not in r[1]]
    assert rows and all(0 <= p < len(found["places"]) and text.startswith("%") for p, text in rows)
    lines = sum(len(s["lines"]) for s in found["sources"])
    assert all(p["at"] and 0 <= a <= c < lines for p in found["places"] for a, _, c, _ in p["at"])
    steps = [s for e in found["entries"] for s in e["steps"] if s["title"] != "copy"]
    assert all(s["places"] for s in steps)
    for step in steps:  # nothing stands for what the optimizer does but what is written there
        own = texts(found, [p for p, _ in step["body"] if p >= 0])
        assert {t for t in texts(found, step["places"]) if "optimizer = " in t} <= own


@pytest.mark.parametrize("entry", ["predict", "train"])
def test_code_points_at_the_loops_and_these_at_operators(entry: str, lenet: Session, explained: Json) -> None:
    found = explained if entry == "train" else document(lenet, entry, 64)
    kernels = {k["name"]: k for k in found["kernels"]}
    names = [e["name"] for e in found["entries"]]
    assert names == (["train"] if entry == "train" else ["predict.many", "predict", "predict.prepare"])
    assert found["memory"]["entry"] == names[0]  # what runs at that size comes first
    for step in (s for e in found["entries"] for s in e["steps"]):
        kernel = kernels[step["kernel"]]
        last = len(kernel["loops"].splitlines())
        assert len(kernel["statements"]) == len(step["origin"])
        assert all(-1 <= k < len(step["body"]) for k in step["origin"])
        for stage in ("llvm", "asm"):
            assert len(kernel[stage]["text"].splitlines()) == len(kernel[stage]["at"]) > 3
            assert {n for n in kernel[stage]["at"] if n} <= set(kernel["statements"]) <= set(range(last + 1))
        assert any(kernel["asm"]["at"]) or step["title"] == "copy", step["kernel"]
        assert "!dbg" not in kernel["llvm"]["text"] and ".loc" not in kernel["asm"]["text"]


def spans(graph: Graph) -> set[str]:
    """What is written where the nodes of a graph are from."""
    return {n.span.text for n in graph if n.span is not None and n.op not in ("input", "param", "constant")}


def test_a_kernel_is_of_the_lines_that_its_operators_are_of(lenet: Session, explained: Json) -> None:
    fused = lenet.stages("train").fused
    wanted = [
        "Conv(6, kernel = 5, pad = 2)" in (spans(n.attrs["body"]) if n.op == "fused" else {n.span and n.span.text})
        for n in (fused[step.node] for step in lenet.stages("train").lowered.entry.steps)
    ]
    steps = explained["entries"][0]["steps"]
    assert ["Conv(6, kernel = 5, pad = 2)" in texts(explained, s["places"]) for s in steps] == wanted
    assert sum(wanted) == 4 < len(steps)  # the padding, the sum, and two of what is derived


def test_derivatives_and_passes_are_those_of_the_line(explained: Json) -> None:
    def of_c1(rows: list[Any]) -> list[str]:
        return [text for p, text in rows if explained["places"][p]["path"] == "LeNet5.c1"]

    assert any(" contract " in text for text in of_c1(explained["operators"]))
    assert any(" contract " in text for text in of_c1(explained["derivatives"]))  # by the weights
    changes = {c["name"]: c for c in explained["passes"]}
    assert len(of_c1(changes["differentiate"]["after"])) >= len(of_c1(explained["derivatives"])) > 0
    before, after = (" ".join(of_c1(changes["simplify"][k])) for k in ("before", "after"))
    assert "a < 1" in before and "a < 1" not in after  # the axis of one group is gone


def test_a_line_that_was_merged_with_another_still_leads_to_its_kernel() -> None:
    found = document(opened(TWICE), "f")
    (step,) = found["entries"][0]["steps"]
    assert of_lines(found, step["places"]) == {3, 4, 5}
    assert [r[1].split(" = ")[1].split()[0] for r in step["body"]] == ["input", "exp", "add"]


def test_times_are_those_of_their_steps() -> None:
    """Of a scan there is one, for all of its turns; what is in it has none of its own."""
    net = nnc.compile(SCAN, threads=1)
    found = profile(net, "f", [np.ones((5, 8), "f4")], MACHINE)
    assert isinstance(net.session, Session)
    steps = document(net.session, "f", profile=found)["entries"][0]["steps"]
    rows = {s["row"]: s for s in steps if s["row"] is not None}
    assert [*rows] == [*range(len(found.kernels))] and len(steps) > len(rows)
    for k, timed in enumerate(found.kernels):
        assert rows[k]["title"] == timed.name or timed.name.startswith("scan") or rows[k]["title"] == "copy"
    assert [s["title"] for s in steps if not s["kernel"]] == ["scan t in 0..T"]
    assert {"tanh", "exp"} <= {s["title"].split(", ")[-1] for s in steps}


def test_memory_is_the_plan(lenet: Session, explained: Json) -> None:
    plan, memory = lenet.stages("train").lowered.plan, explained["memory"]
    assert len(memory["rows"]) == len(plan.lines) and memory["bound"] <= memory["arena"]
    assert max(r["offset"] + r["size"] for r in memory["rows"]) <= memory["arena"]
    for k, a in enumerate(memory["rows"]):
        for b in memory["rows"][:k]:
            apart = a["born"] > b["dies"] or b["born"] > a["dies"]
            assert apart or a["offset"] >= b["offset"] + b["size"] or b["offset"] >= a["offset"] + a["size"]


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.nn").write_text(TWICE)
    Path("g.nn").write_text(TWICE.replace("a + b", "a * sum(b)"))
    measured = profile(nnc.compile("f.nn"), "f", [np.zeros(8, "f4")], MACHINE)
    Path("p.json").write_text(json.dumps(asdict(measured)))
    assert main(["explain", "f.nn", "-o", "f.html", "--profile", "p.json"]) == 0
    assert "f of f.nn in f.html" in capfd.readouterr().out
    text = Path("f.html").read_text()
    assert "{{" not in text and "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    found = json.loads(Path("p.json").read_text())
    Path("q.json").write_text(json.dumps({**found, "entry": "h"}))
    Path("r.json").write_text(json.dumps({**found, "seconds": "long"}))
    for arguments, status, message in (
        (["f.nn"], 2, "-o PATH says where the page goes"),
        (["f.nn", "-o", "f.txt"], 1, "f.txt: the page is an .html file"),
        (["f.nn", "-o", "f.html", "--entry", "ff"], 1, "did you mean `f`?"),
        (["f.nn", "-o", "f.html", "--profile", "none.json"], 4, "none.json is no profile"),
        (["f.nn", "-o", "f.html", "--profile", "f.nn"], 4, "f.nn is no profile"),
        (["f.nn", "-o", "f.html", "--profile", "r.json"], 4, "expected a number as `seconds`"),
        (["f.nn", "-o", "f.html", "--profile", "q.json", "--entry", "f"], 1, "the profile is of the entry `h`"),
        (["g.nn", "-o", "g.html", "--profile", "p.json"], 1, "kernel"),
        (["E9999"], 1, "E9999"),
    ):
        assert main(["explain", *arguments]) == status, arguments
        assert message in capfd.readouterr().err
    assert main(["explain", "E0301"]) == 0 and "sizes disagree" in capfd.readouterr().out


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(explained: Json, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    rows = [{"seconds": 1e-3, "operations": 2, "nbytes": 2, "bound": 5e-4}] * len(explained["entries"][0]["steps"])
    times = {"entry": "train", "sizes": {"B": 64}, "threads": 1, "seconds": 1.0, "rows": rows}
    (folder / "page.html").write_text(page({**explained, "profile": times}))
    assert (folder / "page.html").stat().st_size < 1 << 20
    with browsing(folder / "profile", 1600) as found:
        found.url = f"file://{folder}/page.html"  # type: ignore[attr-defined]
        yield found


def visit(browser: Browser, fragment: str = "") -> None:
    browser.call("POST", "/url", {"url": "about:blank"})
    browser.call("POST", "/url", {"url": f"{browser.url}{fragment}"})  # type: ignore[attr-defined]
    browser.wait("globalThis.ready === true", 20)


def emulate(browser: Browser, command: str, **parameters: Any) -> None:
    browser.call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": parameters})


def lit(browser: Browser) -> list[str]:
    return browser.run("return [...document.querySelectorAll('.kernel.lit b')].map((e) => e.textContent)")


def count(browser: Browser, selector: str) -> int:
    return int(browser.run(f"return document.querySelectorAll(`{selector}`).length"))


def press(browser: Browser, key: str) -> None:
    browser.run(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))")


CLICK_C1 = "[...document.querySelectorAll('#line11 span')].find((e) => e.textContent == 'c1').click()"


def test_a_click_on_a_layer_lights_its_kernels_and_their_assembly(browser: Browser, explained: Json) -> None:
    visit(browser)
    assert count(browser, ".lit") == 0
    browser.run(CLICK_C1)
    steps = explained["entries"][0]["steps"]
    wanted = [s["kernel"] for s in steps if "Conv(6, kernel = 5, pad = 2)" in texts(explained, s["places"])]
    assert lit(browser) == wanted and len(wanted) == 4
    assert "LeNet5.c1" in browser.text("what") and f"({100 * 4 / len(steps):.0f} % of the time)" in browser.text("what")
    for _ in wanted:
        name = browser.text("kernel")
        assert name in wanted
        for stage in ("body", "loops", "llvm", "asm"):
            assert count(browser, f"#{stage} .l.lit") > 0, (name, stage)
        press(browser, "ArrowRight")
    assert count(browser, "#network a.lit") == 2  # there and back
    assert count(browser, "#memory .lit") > 0
    assert count(browser, "#operators .row.before") == 0
    browser.run("document.querySelectorAll('#operators details').forEach((e) => e.open = true)")
    browser.wait("document.querySelectorAll('#operators .row.before').length > 0", 5)
    assert count(browser, "#operators .row.after") > 0
    browser.run("document.querySelector('#line13 b').click()")
    assert not set(lit(browser)) & set(wanted) and lit(browser)


def test_a_line_of_code_lights_the_same_line_of_each_stage(browser: Browser) -> None:
    visit(browser, "#at=11:19")
    browser.run("document.querySelector('#loops .l.lit').click()")
    n = browser.run("return document.querySelector('#loops .l.same').dataset.loop")
    assert count(browser, "#loops .l.same") == 1
    for stage in ("llvm", "asm"):
        assert count(browser, f"#{stage} .l.same") == count(browser, f"#{stage} .l[data-loop='{n}']") > 0


def test_the_fragment_keeps_what_was_chosen(browser: Browser) -> None:
    visit(browser)
    browser.run(CLICK_C1)
    press(browser, "ArrowRight")
    name, kernels = browser.text("kernel"), lit(browser)
    visit(browser, browser.run("return location.hash"))
    assert (browser.text("kernel"), lit(browser)) == (name, kernels)
    for pane in ("network a", "memory .buffer"):
        click = "new MouseEvent('click', {bubbles: true, cancelable: true})"
        browser.run(f"document.querySelectorAll('#{pane}')[2].dispatchEvent({click})")
        said, kernels = browser.text("what"), lit(browser)
        visit(browser, browser.run("return location.hash"))
        assert (browser.text("what"), lit(browser)) == (said, kernels) and kernels
    for wrong in ("#at=999:1", "#line=x", "#kernel=-1", "#place=1e9&code=999", "#layer=nothing"):
        visit(browser, wrong)
        assert lit(browser) == [] and "25 kernels" in browser.text("what")


def test_keys_and_search(browser: Browser) -> None:
    visit(browser, "#line=11")
    press(browser, "ArrowDown")
    assert browser.run("return location.hash").startswith("#line=12")
    press(browser, "/")
    assert browser.run("return document.activeElement.id") == "search"
    browser.run("const s = document.getElementById('search'); s.value = 'c3'; s.dispatchEvent(new Event('input'))")
    assert count(browser, "#found li") > 0
    browser.run("document.getElementById('search').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))")
    assert "LeNet5.c3" in browser.text("what") and count(browser, "#found li") == 0
    size = "return getComputedStyle(document.documentElement).fontSize"
    before = browser.run(size)
    press(browser, "+")
    assert float(browser.run(size)[:-2]) > float(before[:-2])
    press(browser, "Escape")
    assert count(browser, ".lit") == 0


@pytest.mark.parametrize("width", [420, 900, 1600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, width: int, theme: str) -> None:
    emulate(browser, "setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
    emulate(browser, "setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    visit(browser, "#line=10")
    assert browser.run("return document.documentElement.dataset.theme") == theme
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    for _ in range(9 if width == 1600 else 1):  # the lines, each of a colour of its own
        assert browser.run(CONTRAST) == [], browser.text("what")
        press(browser, "ArrowDown")
    browser.click("theme")
    assert browser.run("return document.documentElement.dataset.theme") != theme


CONTRAST = """
const number = (c) => c.match(/[\\d.]+/g).map(Number);
const over = (a, b) => [0, 1, 2].map((k) => a[k] * (a[3] ?? 1) + b[k] * (1 - (a[3] ?? 1)));
const behind = (e) => e ? over(number(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255];
const light = (c) => c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((t, v, k) => t + v * [0.2126, 0.7152, 0.0722][k], 0);
const found = [];
for (const e of document.querySelectorAll("header *, main section:not(#network) *, footer *")) {
  if (![...e.childNodes].some((n) => n.nodeType == 3 && n.data.trim()) || !e.offsetParent) continue;
  const back = behind(e), [a, b] = [light(over(number(getComputedStyle(e).color), back)), light(back)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push([e.textContent.slice(0, 40), e.className, ratio]);
}
return found.slice(0, 10);
"""
