"""A second model of the same program: in float64, with more exports, with another schedule, with parameters in f32.

In: a model, and what is to be different. Out: a model whose variables are copies of the first one's, by path.
"""

from __future__ import annotations

from dataclasses import replace

from ...compiler.session import Session
from ...dsl.source import Source
from ..model import Model


def twin(
    net: Model,
    *,
    text: str | None = None,
    beside: str = "",
    dtype: str | None = None,
    weights_dtype: str | None = None,
    threads: int | None = None,
) -> Model:
    """`text` takes the place of the program's text (what it imports stays), `dtype` of what `f32` is read as,
    `weights_dtype` of what predictions read parameters in; `beside` holds further exports, in which only the models of
    the program and the standard library have names."""
    assert isinstance(net.session, Session)
    source, s = net.session.source, net.session.settings
    settings = replace(
        s,
        model=net.manifest.model,
        sizes=net.manifest.sizes,
        dtype=dtype or s.dtype,
        weights_dtype=weights_dtype or s.weights_dtype,
        beside=beside,
    )
    session = Session(source if text is None else Source(source.name, text), settings)
    other = Model(
        session,
        seed=net.seed,
        threads=threads or net.threads,
        folder=net.folder,
        dataset=net.dataset,
        data_path=net.data_path,
    )
    with net.workspace.lock:
        other.variables.write({path: array for path, array in net.variables.items() if path in other.variables})
    other.schema = net.schema
    return other
