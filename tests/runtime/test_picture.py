"""Pictures of programs: nothing overlaps, edges go down, every operator is somewhere, once."""

from __future__ import annotations

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
from nnc.compiler.graph.nodes import Graph, Node, ancestors
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source
from nnc.runtime.api import _values
from nnc.runtime.cli import main
from nnc.runtime.picture import attach, picture
from nnc.runtime.picture.arrange import Scene, arrange
from nnc.runtime.picture.boxes import LEAST, MOST, Box, boxes, depth, edges, shown
from nnc.runtime.picture.layered import layout
from nnc.runtime.picture.view import View, view, wrapped

MODELS = Path(nnc.__file__).parent / "models"
SVG = "{http://www.w3.org/2000/svg}"


def program(name: str) -> Program:
    path = MODELS / f"{name}.nn"
    return Program(Source(str(path), path.read_text("utf-8")), Settings(arrays=_values))


def tree(of: Program, entry: str) -> tuple[Box, nnc.compiler.graph.nodes.Graph]:
    cx = of.context(entry)
    graph = of.graph(entry, cx)
    return boxes(graph, cx), graph


def attach_derived(root: Box, graph: Graph) -> None:
    """Give the boxes what is derived from them."""
    origin: dict[str, str] = {}
    attach(root, [n for n in differentiate(graph, origin) if n.name in origin], origin)


def loss_of(graph: Graph) -> set[Node]:
    """What the loss is made of."""
    grads = [n.args[0] for n in graph if n.op == "grad" and len(n.args) > 1]
    wanted = ancestors({n.name: n for n in graph}, grads)
    return {n for n in graph if n.name in wanted}


# --- the layout -------------------------------------------------------------------------------------------------------


@st.composite
def directed(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    n = draw(st.integers(0, 12))
    sizes = draw(st.lists(st.tuples(st.floats(1, 200), st.floats(1, 80)), min_size=n, max_size=n))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    return sizes, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []


@settings(max_examples=150)
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
    assert sum(b.parameters for b in found) == 61706 and found[-1].note == "→ logits"
    assert edges(graph, found) == [(k, k + 1) for k in range(12)]


@pytest.mark.parametrize(("depth", "count"), [(1, 16), (2, 79)])
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


MODELS_DRAWN = sorted(p.stem for p in MODELS.glob("*.nn"))


@pytest.mark.parametrize("name", MODELS_DRAWN)
def test_a_picture_has_as_many_boxes_as_one_looks_at(name: str) -> None:
    """Fewer than eight only where there is nothing of the user's left to open."""
    root, _ = tree(program(name), "predict")
    found = shown(root, depth(root))
    inside = [box for box in found if box.inside]
    assert 1 < len(found) and len(inside) <= MOST
    assert len(inside) >= LEAST or all(box.is_std or not box.children for box in found)


def test_what_the_user_declares_and_calls_has_a_box() -> None:
    root, graph = tree(program("two_layer"), "predict")
    found = shown(root, depth(root))
    assert sorted(b.title for b in found) == ["+", "+", "@", "@", "W1", "W2", "b1", "b2", "tanh", "x"]
    drawn = {(found[j].title, found[k].title) for j, k in edges(graph, found)}
    fed = {"W1": "@", "x": "@", "@": "+", "b1": "+", "+": "tanh", "tanh": "@", "W2": "@", "b2": "+"}
    assert drawn == set(fed.items())
    closed = shown(tree(program("neocognitron"), "predict")[0], 1)
    assert [b.title for b in closed if b.nodes[-1].op != "param"] == [
        "x", "reshape(x, [B, 1, 16, 16])", "simple(…, a1, b1)", "complex(features)", "simple(…, a2, b2)",
        "complex(parts)", "simple(…, a3, b3)", "max(wholes, axis = [2, 3])"]  # fmt: skip


# --- views and scenes -------------------------------------------------------------------------------------------------


def seen(name: str, entry: str, across: bool = False) -> tuple[View, Scene]:
    of = program(name)
    cx = of.context(entry)
    graph = of.graph(entry, cx)
    root = boxes(graph, cx)
    attach_derived(root, graph)
    shown_ = view(graph, shown(root, depth(root)), cx, across, False)
    return shown_, arrange(shown_, across)


DRAWN = ("two_layer", "lenet5", "resnet20", "digits_mlp", "char_lstm", "neocognitron", "hopfield", "linear_regression")


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("entry", ["predict", "train"])
@pytest.mark.parametrize("name", DRAWN)
def test_nothing_overlaps_and_every_edge_ends_at_a_card(name: str, entry: str, across: bool) -> None:
    shown_, scene = seen(name, entry, across)
    spans = [(p.x, p.x + p.width, p.y, p.y + p.height) for p in scene.cards]
    for a, b in combinations(spans, 2):
        assert a[1] <= b[0] + 1e-6 or b[1] <= a[0] + 1e-6 or a[3] <= b[2] + 1e-6 or b[3] <= a[2] + 1e-6
    for left, right, top, bottom in spans:
        assert left >= -1e-6 and right <= scene.width + 1e-6 and top >= -1e-6 and bottom <= scene.height + 1e-6
    for line in scene.lines:
        for x, y in (line.points[0], line.points[-1]):
            assert any(a - 1e-6 <= x <= b + 1e-6 and c - 1e-6 <= y <= d + 1e-6 for a, b, c, d in spans), line
        assert all(-1e-6 <= x <= scene.width + 1e-6 and -1e-6 <= y <= scene.height + 1e-6 for x, y in line.points)
    there = [line for line in scene.lines if line.kind == "there"]
    assert len(there) == len(shown_.edges) and len(scene.cards) >= len(shown_.cards) + len(shown_.back)
    for p in scene.cards:  # no text is wider than its card
        assert p.card.size[0] <= p.width + 1e-6 and p.card.size[1] <= p.height + 1e-6


def test_a_slide_is_filled() -> None:
    """Letters of 13 units are at least 16 pixels high at 1920 x 1080 where nothing goes back."""
    for name in ("lenet5", "alexnet", "resnet20", "gpt", "two_layer"):
        svg = ElementTree.fromstring(picture(program(name), "predict", across=True))
        width, height = float(svg.get("width", "")), float(svg.get("height", ""))
        assert width <= 1920 and height <= 1080 and (width > 1800 or height > 1000 or name == "two_layer")
        assert 13 * width / float(svg.get("viewBox", "").split()[2]) >= 16


@pytest.mark.parametrize("name", ["two_layer", "lenet5", "resnet20", "digits_mlp", "gpt"])
def test_the_way_back_is_that_of_the_derivatives(name: str) -> None:
    """Whatever a derived operator of one box reads from those of another is an edge, read backwards."""
    of = program(name)
    cx = of.context("train")
    graph = of.graph("train", cx)
    root = boxes(graph, cx)
    attach_derived(root, graph)
    found = [b for b in shown(root, depth(root)) if b.title != "step"]
    shown_ = view(graph, found, cx, False, False)
    assert shown_.losses and shown_.trained and shown_.optimizer is not None
    cards = {id(b): k for k, b in enumerate(b for b in found if set(b.nodes) & loss_of(graph))}
    owner = {n.name: cards[id(b)] for b in found if id(b) in cards for n in b.backward}
    derived = [n for b in found for n in b.backward if n.name in owner]
    read = {(owner[n.name], owner[a]) for n in derived for a in n.args if a in owner}
    boxed = {k: b for b in found if (k := cards.get(id(b))) is not None}
    through = {(a, b) for a, b in read if a != b and not shares(graph, boxed[a], boxed[b])}
    way = nx.DiGraph(shown_.returning)  # a sum passes on what comes, so it has no operator of its own
    assert all(nx.has_path(way, a, b) for a, b in through) and set(shown_.returning) <= set(shown_.edges)
    assert {k for pair in shown_.returning for k in pair} <= set(shown_.back)


def shares(graph: Graph, a: Box, b: Box) -> bool:
    """Whether `b` reads parameters of the layer `a`, as what keeps them small does."""
    read = [graph[x] for n in b.nodes for x in n.args]
    return bool(a.path) and any(n.op == "param" and n.attrs["path"].startswith(f"{a.path}.") for n in read)


def test_the_text_of_a_step() -> None:
    shown_, _ = seen("two_layer", "train")
    text = {k: (card.title, card.lines) for k, card in shown_.back.items()}
    assert (("∂ W1",), ("f32[4, 3]",)) in text.values() and (("∂ tanh",), ("f32[4]",)) in text.values()
    assert shown_.optimizer is not None and shown_.optimizer.title == ("SGD(0.1)",)
    kept = {shown_.cards[k].title[0] for k in shown_.kept}
    assert {"@", "tanh", "^"} <= kept and "+" not in kept  # a sum remembers nothing
    gpt, _ = seen("gpt", "train", across=True)
    assert gpt.optimizer is not None and gpt.optimizer.lines == ("clip = global_norm(1.0)",)
    assert not seen("hopfield", "train")[0].back  # its update is no derivative
    transposed, _ = seen("convolutional_autoencoder", "train")  # whose convolutions are derivatives themselves
    assert [transposed.cards[k].title[0] for k in transposed.losses] == ["mean"]


def test_several_optimizers_are_named_with_their_groups(tmp_path: Path) -> None:
    (tmp_path / "two.nn").write_text(
        "model M(x: f32[B, 4]) -> (y: f32[B, 1]) {\n    y = x |> D: Dense(1)\n}\ntrain M(x) {\n"
        "    minimize a = mean(y^2) over weights(M.D) with Adam(lr = 0.1), biases(M.D) with SGD(0.2)\n}\n"
    )
    assert main(["show", str(tmp_path / "two.nn"), "--train", "--across", "-o", str(tmp_path / "two.svg")]) == 0
    assert "weights(M.D) with Adam(lr = 0.1), biases(M.D) with SGD(0.2)" in (tmp_path / "two.svg").read_text()


def test_words_are_not_cut() -> None:
    assert wrapped("local_response_norm_of_all(3, k = 2)", 17, 3) == ["local_response_norm_of_all(", "3, k = 2)"]
    assert wrapped("a b c d e f", 3, 2) == ["a b", "c …"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_svg_is_xml_with_a_box_for_each_layer() -> None:
    drawn = ElementTree.fromstring(picture(program("lenet5"), "predict"))
    assert drawn.tag == f"{SVG}svg" and len(drawn.findall(f".//{SVG}rect")) == 1 + 13
    texts = [t.text for t in drawn.iter(f"{SVG}text")]
    assert "48,120 parameters" in texts and "Conv(16, kernel = 5)" in texts and "→ logits" in texts


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.nn").write_text("fn f(x: f32[N]) -> f32 = sum(exp(x))\n")
    assert main(["show", str(MODELS / "lenet5.nn"), "-o", "a.svg"]) == 0
    assert main(["show", "f.nn", "-o", "f.svg"]) == 0
    assert main(["show", str(MODELS / "linear_regression.nn"), "-o", "i.svg", "--entry", "init"]) == 0  # of no box
    assert main(["show", str(MODELS / "lenet5.nn"), "-o", "slide.svg", "--across", "--train"]) == 0
    assert (
        "∂ c3" in Path("slide.svg").read_text()
        and "Adam(lr = cosine(lr, warmup = 100))" in Path("slide.svg").read_text()
    )
    out = capfd.readouterr().out
    assert "predict of LeNet5 in a.svg" in out and "f of f.nn in f.svg" in out
    assert "exp(x)" in Path("f.svg").read_text()
    for arguments, message in (
        (["-o", "a.png"], "expected a .svg file, found .png"),
        (["-o", "a.html"], "nnc explain"),
        (["-o", "a.svg", "--entry", "predic"], "did you mean `predict`?"),
        (["-o", "a.svg", "--train", "--entry", "predict"], "--train draws the entry point train"),
    ):
        assert main(["show", str(MODELS / "lenet5.nn"), *arguments]) == 1
        assert message in capfd.readouterr().err
    assert main(["show", "f.nn", "-o", "none/a.svg"]) == 4
