"""What an import gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....compiler.types.tensors import TensorType
from ...call.column import Array


@dataclass(frozen=True, slots=True)
class Imported:
    """`text` is the `.nn` file; `arrays` what it has learned, by the paths of the text's variables; `taken` how many
    nodes of each operator there were; `inputs` and `outputs` the names of the graph's by those of the text; `results`
    the types of its results, `last` the operator that made each."""

    text: str
    model: str
    arrays: Mapping[str, Array]
    taken: Mapping[str, int]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    results: Mapping[str, TensorType]
    last: Mapping[str, str]
