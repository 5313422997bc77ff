"""House rules of the `.nn` files that ship: canonical form, a doc comment on everything, the promised names."""

from __future__ import annotations

from pathlib import Path

import pytest

import nnc
from nnc.dsl import ast
from nnc.dsl.format import format
from nnc.dsl.parser import parse
from nnc.dsl.source import Source

ROOT = Path(nnc.__file__).parent
STD = sorted((ROOT / "dsl" / "std").glob("*.nn"))
MODELS = sorted((ROOT / "models").glob("*.nn"))
DOCUMENTED = ast.Function | ast.Layer | ast.Optimizer | ast.Const

PROMISED = """
identity relu leaky_relu elu selu gelu silu sigmoid softplus mish hard_tanh threshold softmax log_softmax logsumexp
cross_entropy binary_cross_entropy squared_error absolute_error huber hinge kl_divergence nll
l1 l2 max_norm dropout spatial_dropout global_norm
zeros ones constant truncated_normal glorot_uniform glorot_normal he_uniform he_normal lecun_normal orthogonal
Dense Embedding BatchNorm LayerNorm GroupNorm InstanceNorm RmsNorm
Conv DepthwiseConv ConvTranspose convolve max_pool avg_pool global_avg_pool local_response_norm
warp shift rotate scale affine bilinear random_flip random_crop random_warp
saliency ascend fgsm pgd expected_loss
SGD Momentum Velocity AdaGrad RMSProp Adam AdamW AdaDelta Lion
step exponential cosine linear inverse one_cycle
Attention TransformerBlock
quantile median accuracy top_k_accuracy mean_squared_error r2 perplexity confusion pi
""".split()


def read(path: Path) -> tuple[Source, ast.Module]:
    source = Source(path.name, path.read_text("utf-8"))
    return source, parse(source)


@pytest.mark.parametrize("path", STD + MODELS, ids=lambda p: p.name)
def test_canonical_form(path: Path) -> None:
    source, module = read(path)
    assert format(module, source) == source.text


@pytest.mark.parametrize("path", STD, ids=lambda p: p.name)
def test_every_definition_of_std_is_documented(path: Path) -> None:
    _, module = read(path)
    assert [d.name for d in module.definitions if isinstance(d, DOCUMENTED) and not d.doc] == []
    assert all(isinstance(d, DOCUMENTED) for d in module.definitions)


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_every_model_is_documented_and_tested(path: Path) -> None:
    _, module = read(path)
    assert [d.name for d in module.definitions if isinstance(d, ast.Layer) and not d.doc] == []
    assert any(isinstance(d, ast.Test) for d in module.definitions)


def test_std_has_the_promised_names_once() -> None:
    names = [d.name for path in STD for d in read(path)[1].definitions if isinstance(d, DOCUMENTED)]
    assert len(set(names)) == len(names)
    assert [n for n in PROMISED if n not in names] == []
