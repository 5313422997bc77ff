"""Pictures of programs: nothing overlaps, edges go down, every operator is somewhere, once."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnc
from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.elaborate import Program
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source
from nnc.runtime.cli import main
from nnc.runtime.picture import picture
from nnc.runtime.picture.boxes import Box, boxes, edges, shown
from nnc.runtime.picture.layered import layout

MODELS = Path(nnc.__file__).parent / "models"
SVG = "{http://www.w3.org/2000/svg}"


def program(name: str) -> Program:
    path = MODELS / f"{name}.nn"
    return Program(Source(str(path), path.read_text("utf-8")), Settings())


def tree(of: Program, entry: str) -> tuple[Box, nnc.compiler.graph.nodes.Graph]:
    cx = of.context(entry)
    graph = of.graph(entry, cx)
    return boxes(graph, cx), graph


# --- the layout -------------------------------------------------------------------------------------------------------


@st.composite
def directed(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    n = draw(st.integers(0, 12))
    sizes = draw(st.lists(st.tuples(st.floats(1, 200), st.floats(1, 80)), min_size=n, max_size=n))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    return sizes, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []


@settings(max_examples=150, deadline=None)
@given(directed())
def test_boxes_do_not_overlap_and_edges_go_down_to_their_ends(graph) -> None:
    sizes, pairs = graph
    placed = layout(sizes, pairs)
    spans = [(x - w / 2, x + w / 2, y - h / 2, y + h / 2) for (x, y), (w, h) in zip(placed.centres, sizes, strict=True)]
    for left, right, top, bottom in spans:
        assert left >= -1e-6 and right <= placed.width + 1e-6 and top >= -1e-6 and bottom <= placed.height + 1e-6
    for a, b in combinations(spans, 2):
        assert a[1] <= b[0] + 1e-6 or b[1] <= a[0] + 1e-6 or a[3] <= b[2] + 1e-6 or b[3] <= a[2] + 1e-6
    for (a, b), route in zip(pairs, placed.routes, strict=True):
        assert route[0] == pytest.approx((placed.centres[a][0], spans[a][3]))
        assert route[-1] == pytest.approx((placed.centres[b][0], spans[b][2]))
        assert all(p[1] <= q[1] + 1e-6 for p, q in pairwise(route))


# --- the boxes --------------------------------------------------------------------------------------------------------


def test_lenet_by_layers() -> None:
    root, graph = tree(program("lenet5"), "predict")
    found = shown(root, 1)
    assert [b.title for b in found] == [
        "x", "c1: Conv", "relu", "s2: max_pool", "c3: Conv", "relu", "s4: max_pool", "flatten", "c5: Dense", "relu",
        "f6: Dense", "relu", "output: Dense"]  # fmt: skip
    assert found[1].call == "Conv(6, kernel = 5, pad = 2)" and found[1].result == "f32[B, 6, 28, 28]"
    assert sum(b.parameters for b in found) == 61706 and found[-1].note == "logits"
    assert edges(graph, found) == [(k, k + 1) for k in range(12)]


@pytest.mark.parametrize(("depth", "count"), [(1, 16), (2, 81)])
def test_resnet_opens_block_by_block(depth: int, count: int) -> None:
    root, graph = tree(program("resnet20"), "predict")
    found = shown(root, depth)
    assert len(found) == count and sum(b.parameters for b in found) == 269722
    drawn = nx.DiGraph(edges(graph, found))
    assert nx.is_directed_acyclic_graph(drawn) and nx.is_weakly_connected(drawn) and len(drawn) == count


def test_inside_a_layer_of_the_library_boxes_are_called_after_their_operators() -> None:
    source = """
layer Twice(x: f32[B, D]) -> f32[B, D] { return x |> Dense(D) |> LayerNorm }

model M(x: f32[B, 8]) -> f32[B, 8] { return x |> Twice |> TransformerBlock(2) }
"""
    of = Program(
        Source(
            "<text>",
            source.replace("f32[B, 8]", "f32[B, 5, 8]")
            .replace("x: f32[B, D]", "x: f32[B, T, D]")
            .replace("-> f32[B, D]", "-> f32[B, T, D]"),
        ),
        Settings(),
    )
    twice, block = shown(tree(of, "predict")[0], 1)[1:]
    assert [(b.title, b.call) for b in twice.children] == [("dense_1", "Dense(D)"), ("layernorm_1", "LayerNorm")]
    named = [(b.title, b.call) for b in block.children if b.path]
    assert named[0] == ("layernorm_1", "") and {"attention_1", "dense_1"} <= {t for t, _ in named}
    assert {b.title for b in block.children if not b.path} >= {"add"}


@pytest.mark.parametrize("name", ["lenet5", "digits_mlp", "resnet20", "googlenet", "hopfield", "two_layer"])
def test_every_operator_is_in_one_box_and_every_derivative_comes_from_one(name: str) -> None:
    of = program(name)
    for entry in of.entries:
        root, graph = tree(of, entry)
        leaves = [n.name for b in root.walk() if not b.children for n in b.nodes]
        assert len(leaves) == len(set(leaves)) and set(leaves) <= {n.name for n in graph}
        origin: dict[str, str] = {}
        derived = differentiate(graph, origin)
        known = {n.name for n in derived} | {n.name for n in graph}
        assert set(origin.values()) <= known
        if entry == "train" and name != "hopfield":
            assert {n.name for n in derived if n.name.startswith("d_")} <= set(origin)


# --- files ------------------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "rect", "path", "html"):
            self.open.append(tag)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if str(given.get("href", "")).startswith("#"):
            self.links.append(str(given["href"])[1:])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "html"):
            assert self.open.pop() == tag


def test_an_svg_is_xml_with_a_box_for_each_layer() -> None:
    drawn = ElementTree.fromstring(picture(program("lenet5"), "predict", 1, False))
    assert drawn.tag == f"{SVG}svg" and len(drawn.findall(f".//{SVG}rect")) == 1 + 13
    texts = [t.text for t in drawn.iter(f"{SVG}text")]
    assert "48,120 parameters" in texts and "Conv(16, kernel = 5)" in texts and "→ logits" in texts


@pytest.mark.parametrize("name", ["lenet5", "logistic_regression", "hopfield"])
def test_a_page_opens_where_its_picture_is_clicked(name: str) -> None:
    text = picture(program(name), "train" if name != "hopfield" else "predict", 1, True)
    parser = Balanced()
    parser.feed(text)
    assert not parser.open and parser.links and set(parser.links) <= set(parser.ids)
    assert len(parser.ids) == len(set(parser.ids))
    if name == "lenet5":
        c3 = re.search(r"<b>c3: Conv</b>.*?</details>\n", text, re.S)[0]
        assert "= contract" in c3.split("backward</summary>")[0]
        assert "= contract" in c3.split("backward</summary>")[1]


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.nn").write_text("fn f(x: f32[N]) -> f32 = sum(exp(x))\n")
    assert main(["show", str(MODELS / "lenet5.nn"), "-o", "a.svg"]) == 0
    assert main(["show", str(MODELS / "lenet5.nn"), "-o", "a.html"]) == 0
    assert main(["show", "f.nn", "-o", "f.svg"]) == 0
    out = capfd.readouterr().out
    assert "predict of LeNet5 in a.svg" in out and "train of LeNet5 in a.html" in out and "f of f.nn in f.svg" in out
    assert "exp(x)" in Path("f.svg").read_text()
    for arguments, message in (
        (["-o", "a.png"], "expected a .svg or .html file, found .png"),
        (["-o", "a.svg", "--entry", "predic"], "did you mean `predict`?"),
    ):
        assert main(["show", str(MODELS / "lenet5.nn"), *arguments]) == 1
        assert message in capfd.readouterr().err
    assert main(["show", "f.nn", "-o", "none/a.svg"]) == 4
