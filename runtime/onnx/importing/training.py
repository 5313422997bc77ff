"""A train block for what was imported: the loss that fits the first output, to be changed by who knows better."""

from __future__ import annotations

from dataclasses import replace
from textwrap import wrap

from ....compiler.types.tensors import FLOATS, TensorType
from .refusals import Refusal, RefusedImport
from .result import Imported
from .text import formatted

_ADVICE = (
    "The loss is that of {why}. `nnc explain csv` and its neighbours name the data that can be read; from Python it is "
    "`net.fit(..)`."
)
_FOLDED = (
    " Exporters fold batch norm into convolutions: if the network had it, it is better trained from where it was made, "
    "exported without that or by `nnc.from_torch`."
)


def with_training(made: Imported) -> Imported:
    """Raises RefusedImport where no output is of floats."""
    name, type_ = next(((n, t) for n, t in made.results.items() if t.dtype in FLOATS), ("", None))
    if type_ is None:
        refusal = Refusal(made.model, "output", "no output is of floats, so no loss fits one")
        raise RefusedImport(made.model, [refusal])
    given = ", ".join(made.inputs)
    target, loss, metric, why = _goal(name, type_, made.last.get(name, ""))
    lines = [f"    loss = {loss}"]
    if metric:
        lines.append(f"    metric accuracy = {metric}")
    lines += ["    optimizer = Adam(lr = 1e-3)", "    batch = 32", "    epochs = 10"]
    folded = made.taken.get("Conv") and not made.taken.get("BatchNormalization")
    advice = "\n".join(f"# {line}" for line in wrap(_ADVICE.format(why=why) + (_FOLDED if folded else ""), 118))
    block = f"train {made.model}({given}, {target}) {{\n" + "\n".join(lines) + "\n}\n"
    return replace(made, text=formatted(f"{made.text}\n{advice}\n{block}"))


def _goal(name: str, t: TensorType, last: str) -> tuple[str, str, str, str]:
    """The target as an input, the loss, a metric, and what it is for."""
    shape = list(t.shape)
    axis = 1 if len(shape) == 4 else len(shape) - 1
    if len(shape) > 1 and shape[axis] != 1 and last != "Sigmoid":
        sizes = ", ".join(str(d) for k, d in enumerate(shape) if k != axis)
        on = "" if axis == len(shape) - 1 else f", axis = {axis}"
        scores = f"log({name})" if last == "Softmax" else name
        loss = f"nll({name}, label{on})" if last == "LogSoftmax" else f"cross_entropy({scores}, label{on})"
        return f"label: i32[{sizes}]", f"mean({loss})", f"mean(argmax({name}, axis = {axis}) == label)", "classes"
    sizes = f"[{', '.join(map(str, shape))}]" if shape else ""
    target = f"target: {t.dtype}{sizes}"
    if last == "Sigmoid":
        loss = f"-mean(target * log({name} + 1e-7) + (1 - target) * log(1 - {name} + 1e-7))"
        return target, loss, "", "probabilities"
    return target, f"mean(squared_error({name}, target))", "", "numbers"
