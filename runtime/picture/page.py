"""A page on which a program opens, layer by layer, to its operators: forward, and what is derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...compiler.graph.nodes import Node
from ...compiler.graph.text import print_node
from .boxes import Box

_STYLE = """
body { font: 14px/1.45 Helvetica, Arial, sans-serif; margin: 0; color: #222; }
main { display: flex; align-items: flex-start; }
.picture { padding: 12px; overflow: auto; max-height: 100vh; position: sticky; top: 0; flex: 0 1 auto; max-width: 50vw;
           box-sizing: border-box; border-right: 1px solid #ddd; }
.layers { padding: 12px 20px; flex: 1 1 0; min-width: 0; }
h1 { font-size: 18px; margin: 4px 0 2px; }
p { margin: 2px 0 10px; color: #555; }
details { margin: 2px 0 2px 14px; }
details.layer { margin-left: 0; }
details .layer { margin-left: 14px; }
summary { cursor: pointer; padding: 1px 4px; border-radius: 3px; }
summary:hover, :target > summary { background: #fff3b8; }
summary b { margin-right: 8px; }
summary span { color: #666; margin-right: 8px; }
pre { font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; margin: 2px 0 6px 14px; padding: 6px 8px;
      background: #f6f6f6; overflow-x: auto; }
pre.backward { background: #fdf1ee; }
"""
_SCRIPT = """
function unfold() {
  let e = location.hash && document.querySelector(location.hash);
  for (; e; e = e.parentElement) if (e.tagName == "DETAILS") e.open = true;
}
addEventListener("hashchange", unfold);
unfold();
"""


def page(title: str, about: str, picture: str, root: Box, drawn: Sequence[Box], rest: Sequence[Node]) -> str:
    """`picture` is the SVG of the boxes `drawn`; `rest` are derived operators that belong to no box."""
    number = {id(box): k for k, box in enumerate(drawn)}
    body = "".join(_details(box, number) for box in root.children if box.nodes)
    if rest:
        summary = "<summary><b>everything else</b></summary>"
        body += f"<details class=layer>{summary}{_operators(rest, 'backward')}</details>"
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
    return (
        f"<!doctype html>\n<html lang=en>{head}\n<main><div class=picture>{picture}</div>\n"
        f"<div class=layers><h1>{escape(title)}</h1><p>{escape(about)}</p>\n"
        f"{body}</div></main>\n<script>{_SCRIPT}</script></html>\n"
    )


def _details(box: Box, number: dict[int, int]) -> str:
    name = f' id="box{number[id(box)]}"' if id(box) in number else ""
    facts = [
        box.call if box.path else "",
        box.result,
        f"{box.parameters:,} parameters" if box.parameters else "",
        f"{len(box.nodes)} operators" if len(box.nodes) > 1 else "",
        f"{len(box.backward)} backward" if box.backward else "",
    ]
    head = f"<b>{escape(box.title)}</b>" + "".join(f"<span>{escape(f)}</span>" for f in facts if f)
    if box.children:
        inside = "".join(_details(child, number) for child in box.children)
    else:
        inside = _operators(box.nodes, "forward") + _operators(box.backward, "backward")
    return f"<details class=layer{name}><summary>{head}</summary>{inside}</details>\n"


def _operators(nodes: Sequence[Node], kind: str) -> str:
    if not nodes:
        return ""
    text = "\n".join(print_node(n) for n in nodes)
    title = "" if kind == "forward" else "<summary>backward</summary>"
    code = f"<pre class={kind}>{escape(text)}</pre>"
    return code if not title else f"<details>{title}{code}</details>"
