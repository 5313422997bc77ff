"""A training in C, on every target that can be run here: weights, optimiser, metrics and predictions of Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc

from .conftest import CROSS, LEVELS, MODELS, STRICT, compile_c, ship, variables

EPOCHS = 3
SOURCE = Path(__file__).with_name("digits.c")
SANITIZE = ("-std=c99", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Enough:
    def on_epoch(self, history: nnc.History, net: nnc.Model) -> bool:
        return len(history) >= EPOCHS


@pytest.fixture(scope="module")
def learned() -> tuple[nnc.Model, np.ndarray, np.ndarray, list[str]]:
    """The model after some epochs of its 60, its examples, and what the C program is to print."""
    net = nnc.compile(MODELS / "digits_mlp.nn", hyper={"width": 32}, threads=2)
    columns = net.load_dataset().for_training(net.train_spec.inputs, net.entry("train").wants)
    images, labels = (np.ascontiguousarray(c) for c in columns)
    history = net.fit(callbacks=[Enough()])
    printed = [f"{np.float32(history[-1][m]).item().hex()}" for m in ("loss", "accuracy")]
    loss, accuracy = net.entry("evaluate")(images, labels)
    printed += [float(loss).hex(), float(accuracy).hex(), str(EPOCHS * len(labels))]
    return net, images, labels, printed


def run(command: list[str], folder: Path, images: np.ndarray, labels: np.ndarray) -> list[str]:
    images.tofile(folder / "images.bin")
    labels.tofile(folder / "labels.bin")
    ran = subprocess.run([*command, str(EPOCHS)], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [float.fromhex(word).hex() if "x" in word else word for word in ran.stdout.split()]


@pytest.mark.parametrize("target", ["x86-64", *LEVELS, *CROSS])
def test_a_training_in_c_has_the_bits_of_python(target: str, learned, tmp_path: Path) -> None:
    net, images, labels, printed = learned
    made = ship(net, target, tmp_path)
    flags = (*STRICT, f"-DN={len(labels)}")
    command = compile_c(target, SOURCE, tmp_path, tmp_path / "digits", *flags)
    assert run(command, tmp_path, images, labels) == printed
    state = np.fromfile(tmp_path / "state.bin", np.uint8)
    assert state.size == made.interface.state.nbytes
    for path, (ours, theirs) in variables(net, made.interface.state, state).items():
        assert ours == theirs, path
    logits = np.fromfile(tmp_path / "logits.bin", np.float32).reshape(len(labels), 10)
    np.testing.assert_array_equal(logits.view(np.int32), net.predict(images).view(np.int32))


@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_the_sanitizers_find_nothing(compiler: str, learned, tmp_path: Path) -> None:
    """In the program, which has scratch memory of exactly the size that is stated, before a page that may not be
    touched; C++17 takes the header, too."""
    net, images, labels, printed = learned
    ship(net, "x86-64-v2", tmp_path)
    flags = (*SANITIZE, f"-DN={len(labels)}")
    command = compile_c("x86-64-v2", SOURCE, tmp_path, tmp_path / "digits", *flags)
    if compiler == "c++":
        source = (
            SOURCE.read_text().replace("(const float (*)[64])", "").replace("char *start = ", "char *start = (char *)")
        )
        (tmp_path / "digits.cpp").write_text(source)
        strict = ("-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsanitize=address,undefined")
        command = [str(tmp_path / "digits")]
        subprocess.run(
            ["c++", *strict, f"-DN={len(labels)}", f"-I{tmp_path}", str(tmp_path / "digits.cpp"),
             str(tmp_path / "libnet.a"), "-o", *command], check=True,
        )  # fmt: skip
    assert run(command, tmp_path, images, labels) == printed
