"""Every model leaves: it builds, its example compiles without a warning and runs, and steps give Python's state."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.runtime.check.gradcheck import sample_inputs

from .conftest import MODELS, STRICT, host, loaded, ship, variables

LARGE = ("alexnet", "googlenet", "resnet", "squeezenet", "vgg")  # the same layers, of sizes that take minutes
NAMES = sorted(p.stem for p in MODELS.glob("*.nn") if p.stem not in LARGE)
STUCK = {"graph_network": "its graph has 34 nodes, not four"}  # what the example cannot know


def sized(net: nnc.Model, name: str) -> dict[str, int]:
    """A batch of three, and 34 people where it is they who are counted."""
    free = {"N": 34} if net.name == "Club" else {}
    return {s: free.get(s, 8 if s in ("H", "W") else 3) for s in net.entry(name).signature.sizes}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_leaves(name: str, tmp_path: Path) -> None:
    net = nnc.compile(MODELS / f"{name}.nn", threads=1)
    trains = net.manifest.train is not None
    made = ship(net, host(), tmp_path, trains)
    assert made.facts["undefined"] == []
    program = tmp_path / "example"
    subprocess.run(
        ["cc", *STRICT, f"-I{tmp_path}", str(tmp_path / "example.c"), str(tmp_path / "libnet.a"), "-o", str(program)],
        check=True,
    )
    ran = subprocess.run([program], capture_output=True, text=True)
    assert ran.returncode == (name in STUCK), ran.stdout
    if trains:
        steps_agree(net, made, tmp_path)


def steps_agree(net: nnc.Model, made, folder: Path) -> None:
    """Begin from a seed, three steps, predict: as Python does."""
    library, face = loaded(made, folder), made.interface
    state, prepared = np.zeros(face.state.nbytes, np.uint8), np.zeros(max(1, face.prepared.nbytes), np.uint8)
    held = {"state": state, "weights": state[face.state.offset("weights") :]}
    assert library.call("init", held, {}, seed=7, steps=9)[0] == 0
    net.reset(7)
    net.set_training(steps=9)
    sizes = sized(net, "train")
    for k in range(3):
        inputs = sample_inputs(net.entry("train").signature.inputs, 3, sizes=sizes, seed=k)
        given = dict(zip([p.name for p in net.entry("train").signature.inputs], inputs, strict=True))
        wanted = net.entry("train")(**given)
        code, outputs = library.call("train", held, sizes, **given)
        assert code == 0
        at = {f.name: f.offset for f in face.metrics.fields}
        for p, array in zip(net.entry("train").signature.outputs, wanted, strict=True):
            if p.name in at:
                found = outputs["metrics"][at[p.name] : at[p.name] + array.nbytes].tobytes()
                assert found == array.tobytes(), p.name
    for path, (ours, theirs) in variables(net, face.state, state).items():
        assert ours == theirs, path
    numbers = {n: int(net.variables[f"train/{n}"]) for n in ("seed",) if f"train/{n}" in net.variables}
    numbers["step"] = int(net.variables["train/t"])
    held = {"weights": held["weights"], "prepared": prepared}
    if face.prepared.fields:
        assert library.call("prepare", held, {}, **numbers)[0] == 0
    sizes = sized(net, "predict")
    inputs = sample_inputs(net.entry("predict").signature.inputs, 3, sizes=sizes)
    given = dict(zip([p.name for p in net.entry("predict").signature.inputs], inputs, strict=True))
    code, outputs = library.call("predict", held, sizes, **given)
    assert code == 0
    for p, array in zip(net.entry("predict").signature.outputs, net.entry("predict")(**given), strict=True):
        assert outputs[p.name].tobytes() == array.tobytes(), p.name
