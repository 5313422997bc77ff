"""No compilation runs away: what is too large is refused soon, and no stage is exponential in depth."""

import json
import resource
import subprocess
import sys

import pytest

SECONDS = 60  # of CPU, where everything below takes 6: what doubles with each line would take years

LARGE = {
    "calls that double": "model M(x: f32[B]) -> f32[B] { return f40(x) }\nfn f0(x) = x\n"
    + "".join(f"fn f{i}(x) = f{i - 1}(f{i - 1}(x))\n" for i in range(1, 41)),
    "turns that do nothing": "fn f(x: f32[B]) -> f32[B] {\n repeat 3000 { repeat 3000 { } }\n return x\n}",
    "a text that doubles": 'fn f(x: f32[B]) -> f32[B] {\n a = "a"\n repeat 60 { a = a + a }\n return x\n}',
    "a derivative that doubles": "fn f(x: f32[B]) -> f32 {\n y = sum(sin(x))\n repeat 40 { y = sum(sin(grad(y, x))) }\n"
    " return y\n}",
}
DIAMONDS = (  # each reads the last value twice
    "y = sin(y) + cos(y)", "y = y * y + y", "y = where(y > 0.5, y * 0.5, y + 0.3)", "y = maximum(y, sin(y))",
    "y = y.T + y", "y = concat([y[:, 1:], y[:, :1]], axis = 1) + y", "y = y @ y + y", "y = softmax(y) + y",
    "y = reshape(flatten(y), [N, N]) + y", "y = checkpoint(sin(y)) * y", "y = straight_through(round(y), y) * y",
    "y = y - mean(y, axis = 1, keep = true) * y", "z[i, j] = sum[k](y[i, k] * y[k, j]) + y[j, i]\n y = z",
    "y = cumsum(y) * y", "s = y\n scan t in 0..3 { s = s * 0.5 + y }\n y = s * y",
)  # fmt: skip

CHAINS = (  # longer than Python's stack is deep
    "x" + " + sin(x)" * 1500, "x" + " |> maximum(0)" * 1500, "x" + ".T[:]" * 1000,
    "where(x > 0" + " and x > 0" * 1500 + ", x * x - x, 0)",
)  # fmt: skip

CHECK = """
import json, sys
from nnc.compiler.elaborate import Program
from nnc.compiler.settings import Settings
from nnc.dsl.errors import SourceError
from nnc.dsl.source import Source

def codes(text):
    try:
        return sorted({d.code for d in Program(Source("a", text), Settings()).check()})
    except SourceError as e:
        return [e.code]

print(json.dumps([codes(text) for text in json.load(sys.stdin)]))
"""
STAGES = """
import json, sys
from nnc.compiler.elaborate import Program
from nnc.compiler.loops.text import print_loops
from nnc.compiler.native.objects import target
from nnc.compiler.pipeline import stages
from nnc.compiler.settings import Settings
from nnc.compiler.graph.text import parse_graph, print_graph
from nnc.dsl.format import format
from nnc.dsl.parser import parse
from nnc.dsl.source import Source

for text in json.load(sys.stdin):
    source = Source("a", text)
    format(parse(source), source)
    program = Program(source, Settings())
    program.check()
    made = stages(program, "g", target())
    parse_graph(print_graph(made.graph))
    parse_graph(print_graph(made.fused))
    print_loops(made.lowered.module)
print("[]")
"""
JOINED = """
import json, sys
import numpy as np
import nnc

(n,) = json.load(sys.stdin)
f = nnc.function(f"fn f(x: f32[B]) -> f32[{n} * B] = concat([{', '.join(['x'] * n)}])", cache=False)
print(json.dumps([int(v) for v in f(np.arange(2, dtype=np.float32))]))
"""


def bounded(code: str, given: object) -> object:
    """What a program prints, as JSON, with `given` on its input; killed when it runs away."""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_what_is_too_large_is_refused_soon() -> None:
    assert bounded(CHECK, list(LARGE.values())) == [["E0502"]] * len(LARGE)


@pytest.mark.parametrize("gradient", [False, True])
def test_no_stage_is_exponential_in_depth(gradient: bool) -> None:
    end = "return grad(sum(y), x)" if gradient else "return y"
    programs = []
    for line in DIAMONDS:
        body = "\n ".join([line] * 30)
        programs.append(f"fn g(x: f32[N, N]) -> f32[N, N] {{\n y = x\n {body}\n {end}\n}}")
    bounded(STAGES, programs)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain[:16])
def test_a_chain_may_be_long(chain: str) -> None:
    """A definition of so many operators in a row, and its gradient, through every stage."""
    body = f"fn g(x: f32[N, N]) -> f32[N, N] {{\n y = {chain}\n return grad(sum(y), x) + y\n}}"
    bounded(STAGES, [body])


def test_a_condition_of_training_is_no_longer_than_a_tree_is_deep() -> None:
    text = "model M(x: f32[B]) -> (y: f32[B]) {{\n weight w: f32 = 1\n y = x * w\n}}\ntrain M(x) {{\n loss = mean(y)\n"
    text += " optimizer = SGD(0.1)\n stop when loss < 0{}\n}}"
    assert bounded(CHECK, [text.format(" or loss < 0" * n) for n in (100, 5000)]) == [[], ["E0502"]]


def test_code_for_many_parts_grows_with_their_number() -> None:
    assert bounded(JOINED, [5000]) == [0, 1] * 5000
