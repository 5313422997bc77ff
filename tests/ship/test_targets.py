"""Training on processors alone, and in WebAssembly: the state after some steps has the hash of Python's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.native import wasm
from nnc.runtime.ship.build import Build
from nnc.runtime.ship.learned import read

from .conftest import MODELS, ship

BARE = Path(__file__).with_name("bare")
STEPS, BATCH = 3, 4
CORTEX = {  # flags of the compiler, the machine of QEMU, where its code and memory lie
    "cortex-m0plus": (["-mcpu=cortex-m0plus"], ["-M", "mps2-an385", "-cpu", "cortex-m3"], (0, 0x20000000)),
    "cortex-m4": (["-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"], ["-M", "mps2-an386"], (0, 0x20000000)),
    "cortex-m7": (["-mcpu=cortex-m7", "-mfpu=fpv5-d16"], ["-M", "mps2-an500"], (0, 0x20000000)),
    "cortex-m33": (["-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16"], ["-M", "mps2-an505"], (0x10000000, 0x38000000)),
}
RISCV = {
    "riscv64": ("rv64gc", "lp64d", "qemu-riscv64"),
    "riscv32imafc": ("rv32imafc", "ilp32f", "qemu-riscv32"),
    "riscv32imac": ("rv32imac", "ilp32", "qemu-riscv32"),
}
NETS = {"digits": ("digits_mlp.nn", {"width": 32}, (64,)), "lenet": ("lenet5.nn", {}, (1, 28, 28))}


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.fixture(scope="module", params=NETS)
def trained(request) -> tuple[nnc.Model, tuple[int, ...], str]:
    """A net, the shape of an example, and the hash of its state after the steps of `bare/steps.c`."""
    name, hyper, shape = NETS[request.param]
    net = nnc.compile(MODELS / name, hyper=hyper, threads=1, seed=7)
    net.set_training(steps=100)
    r = 1
    for _ in range(STEPS):
        drawn = []
        for _ in range(BATCH * int(np.prod(shape)) + BATCH):
            r = (r * 1664525 + 1013904223) & 0xFFFFFFFF
            drawn.append(r)
        x = np.array([n >> 8 for n in drawn[:-BATCH]], np.float32) * np.float32(2.0**-24)
        net.train_step(x.reshape(BATCH, *shape), np.array([(n >> 28) % 10 for n in drawn[-BATCH:]], np.int32))
    from nnc.compiler.standalone import structs

    state = structs.state(net.manifest, structs.weights(net.manifest))
    found = 2166136261
    for byte in read(net, state, structs.layout(state)):
        found = ((found ^ byte) * 16777619) & 0xFFFFFFFF
    return net, shape, f"{found:08x}"


def flags(shape: tuple[int, ...], folder: Path, made: Build) -> list[str]:
    inner = "".join(f"[{n}]" for n in shape)
    return [
        f"-DSTEPS={STEPS}",
        f"-DBATCH={BATCH}",
        f"-DINNER={inner}",
        f"-DSTACK={made.facts['stack']['train']}",
        f"-I{folder}",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]


def printed(command: list[str]) -> str:
    """What it says; by semihosting that is to stderr."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=300)
    return ran.stdout.strip()


@pytest.mark.parametrize("target", CORTEX)
def test_cortex_m_alone(target: str, trained, tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    net, shape, wanted = trained
    cpu, machine, (code, memory) = CORTEX[target]
    made = ship(net, target, tmp_path)
    hard = ["-mfloat-abi=hard", "-DFPU"] if len(cpu) > 1 else ["-mfloat-abi=soft"]
    size = 0x200000 if target == "cortex-m33" else 0x400000
    where = [f"-Wl,--defsym={k}={v}" for k, v in (("CODE", code), ("MEMORY", memory), ("SIZE", size))]
    subprocess.run(
        ["arm-none-eabi-gcc", "-std=gnu99", "-mthumb", *cpu, *hard, *flags(shape, tmp_path, made), "-nostdlib",
         BARE / "steps.c", BARE / "cortex_m.c", tmp_path / "libnet.a", "-lgcc", "-T", BARE / "cortex_m.ld", *where,
         "-o", tmp_path / "steps"], check=True, capture_output=True,
    )  # fmt: skip
    quiet = ["-nographic", "-semihosting-config", "enable=on,target=native", "-kernel", str(tmp_path / "steps")]
    assert printed(["qemu-system-arm", *machine, *quiet]) == wanted


@pytest.mark.parametrize("target", RISCV)
def test_risc_v_alone(target: str, trained, tmp_path: Path) -> None:
    march, mabi, emulator = RISCV[target]
    needs("riscv64-unknown-elf-gcc", emulator)
    net, shape, wanted = trained
    made = ship(net, target, tmp_path)
    subprocess.run(
        ["riscv64-unknown-elf-gcc", "-std=gnu99", "-ffreestanding", f"-march={march}", f"-mabi={mabi}",
         *flags(shape, tmp_path, made), "-nostdlib", "-Wl,--no-relax", BARE / "steps.c", BARE / "riscv.c",
         tmp_path / "libnet.a", "-lgcc", "-o", tmp_path / "steps"], check=True, capture_output=True,
    )  # fmt: skip
    assert printed([emulator, str(tmp_path / "steps")]) == wanted


HOSTED = {
    "armv7-a": ("arm-linux-gnueabihf-gcc", "qemu-arm"),
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64"),
}


@pytest.mark.parametrize("target", HOSTED)
def test_arm_with_an_operating_system(target: str, trained, tmp_path: Path) -> None:
    needs(*HOSTED[target])
    net, shape, wanted = trained
    made = ship(net, target, tmp_path)
    files = [BARE / "steps.c", BARE / "hosted.c", tmp_path / "libnet.a", "-o", tmp_path / "steps"]
    compiler, emulator = HOSTED[target]
    subprocess.run([compiler, "-std=gnu99", "-static", *flags(shape, tmp_path, made), *files], check=True)
    assert printed([emulator, str(tmp_path / "steps")]) == wanted


@pytest.mark.parametrize("target", ["wasm32", "wasm32-relaxed"])
def test_webassembly(target: str, trained, tmp_path: Path) -> None:
    needs("node")
    net, shape, wanted = trained
    made = ship(net, target, tmp_path)
    (tmp_path / "net.wasm").write_bytes(wasm.link(made.files["net.o"]))
    train = next(c for c in made.interface.calls if c.name == "train")
    from nnc.runtime.ship.build import scratch

    sizes = [made.interface.state.nbytes, scratch(train, BATCH, 16), BATCH, int(np.prod(shape)), STEPS]
    relaxed = ["--experimental-wasm-relaxed-simd"] if target == "wasm32-relaxed" else []
    assert printed(["node", *relaxed, str(BARE / "steps.mjs"), str(tmp_path / "net.wasm"), *map(str, sizes)]) == wanted
