"""What is packed once, in panels, where a product reads it in every turn or call."""

import pytest

from nnc.compiler.graph.product import product
from nnc.compiler.graph.text import parse_graph
from nnc.compiler.lowering.kernels.schedule import schedule
from nnc.compiler.lowering.panels import pack
from nnc.compiler.native.target import level

PREFIX = """graph @g {{
  %q = input : f32[B, 64, 32]
  %k = input : f32[B, 4096, 32]
  %y = contract %q, %k {{[b, t, s] += [b, t, c] * [b, s, c] for b < B, t < 64, s < {columns}, c < 32
    where {rest} >= 0}} : f32[B, 64, {columns}]
  output y = %y
}}"""


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(
    ("columns", "rest", "packed"),
    [("64*i + 64", "-64*i + 4032", True), ("20*i + 20", "-20*i + 4076", False), ("2048", "2048", True)],
)
def test_the_first_of_the_columns_are_the_first_of_the_panels(columns: str, rest: str, packed: bool, name: str) -> None:
    """Where they are whole, of the width of the tile or another; what is read of the panels need not be all."""
    graph = parse_graph(PREFIX.format(columns=columns, rest=rest).replace("\n    where", " where"))
    made = pack(graph, {"k"}, level(name))
    assert any(n.op == "unpack" for n in made) == packed


def test_only_columns_may_be_read_in_part() -> None:
    """Panels have all steps of the sum."""
    text = PREFIX.format(columns="4096", rest="0").replace("\n    where 0 >= 0", "").replace("c < 32", "c < 16")
    assert all(n.op != "unpack" for n in pack(parse_graph(text), {"k"}, level("x86-64-v4")))


@pytest.mark.parametrize("columns", [1024, 4096, 5000])
def test_threads_share_panels_in_whole_chunks(columns: int) -> None:
    """As many for each of a few threads; what is left over is no more than one of them."""
    target = level("x86-64-v4")
    text = f"""graph @g {{
  %x = input : f32[B, 4096]
  %w = input : f32[4096, {columns}]
  %y = contract %x, %w {{[b, j] += [b, k] * [k, j] for b < B, j < {columns}, k < 4096}} : f32[B, {columns}]
  output y = %y
}}"""
    graph = pack(parse_graph(text), {"w"}, target)
    p = next(p for n in graph if n.op == "contract" and (p := product(n, graph)) is not None)
    chunks, rest = divmod(columns, schedule(p, target).width)
    assert p.width and chunks >= 8 and rest * 8 <= columns, (chunks, rest)
