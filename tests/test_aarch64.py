"""nnc itself on aarch64: it compiles, trains and predicts by QEMU, with the bits that it has here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import nnc

ROOT = Path(nnc.__file__).parent
PROGRAM = """
import platform, sys
import numpy as np
import nnc

net = nnc.compile(sys.argv[1], threads=1)
history = net.fit()
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
print(platform.machine(), len(history), net.predict(x).tobytes().hex())
"""


def test_the_bits_are_those_of_this_machine(tmp_path: Path) -> None:
    folder = os.environ.get("NNC_AARCH64")
    if not folder or shutil.which("qemu-aarch64") is None:
        pytest.skip("NNC_AARCH64 names no folder that tests/aarch64.sh made, or there is no qemu-aarch64")
    (tmp_path / "nnc").symlink_to(ROOT)
    python = ["qemu-aarch64", "-L", folder, f"{folder}/usr/bin/python3.11", "-c", PROGRAM]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{folder}/site",
        "PYTHONHOME": f"{folder}/usr",
        "NNC_CACHE": "",
    }
    there = subprocess.run(
        [*python, ROOT / "models/xor.nn"], env=environment, capture_output=True, text=True, check=False
    )
    assert there.returncode == 0, there.stderr
    net = nnc.compile(ROOT / "models" / "xor.nn", threads=1)
    history = net.fit()
    here = net.predict([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert there.stdout.split() == ["aarch64", str(len(history)), here.tobytes().hex()]
