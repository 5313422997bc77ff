"""The stack that functions are said to need is enough, and not much more: programs on a painted stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import nnc

from .conftest import MODELS, compile_c, ship

PROGRAM = """
#define _GNU_SOURCE
#include "net.h"
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
enum { SIZE = 1 << 18, B = 20 };
static unsigned char painted[SIZE] __attribute__((aligned(4096)));
static unsigned char scratch[1 << 24];
static net_state state;
static net_prepared prepared;
static net_metrics metrics;
static const float x[B]INNER;
static const int32_t label[B];
static float logits[B][10];
static uint32_t order[B];
static int32_t code;
static ucontext_t here, there;

static int32_t rows(void *user, uint32_t example, float first INNER, int32_t *last) {
    (void)user, (void)example, (void)first;
    last[0] = 0;
    return 0;
}
static void nothing(void) {}
static void init(void) { code = net_init(&state, 1, 9, scratch, sizeof scratch); }
static void prepare(void) { code = net_prepare(&state.weights, &prepared, scratch, sizeof scratch); }
static void predict(void) { code = net_predict(&prepared, B, x, logits, scratch, sizeof scratch); }
static void train(void) { code = net_train(&state, B, x, label, &metrics, scratch, sizeof scratch); }
static void evaluate(void) { code = net_evaluate(&state.weights, B, x, label, &metrics, scratch, sizeof scratch); }
static void ordered(void) { code = net_order(order, B, 1, 0, scratch, sizeof scratch); }
static void epoch(void) {
    code = net_epoch(&state, rows, NULL, order, B, 8, &metrics, scratch, sizeof scratch);
}

static long used(void (*work)(void)) {
    memset(painted, 0xA5, SIZE);
    getcontext(&there);
    there.uc_stack.ss_sp = painted;
    there.uc_stack.ss_size = SIZE;
    there.uc_link = &here;
    makecontext(&there, work, 0);
    swapcontext(&here, &there);
    long k = 0;
    while (k < SIZE && painted[k] == 0xA5) k++;
    return SIZE - k;
}

int main(void) {
    long base = used(nothing);
#define SAY(name, work) printf("%s %ld %d\\n", name, used(work) - base, (int)code);
    SAY("init", init) SAY("prepare", prepare) SAY("predict", predict) SAY("train", train) SAY("evaluate", evaluate)
    SAY("order", ordered) SAY("epoch", epoch)
    return 0;
}
"""


@pytest.mark.parametrize(("name", "target"), [
    *(("digits_mlp", t) for t in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "riscv64")),
    ("lenet5", "x86-64-v4"), ("lenet5", "aarch64"),
])  # fmt: skip
def test_the_stack_is_as_deep_as_is_said(name: str, target: str, tmp_path: Path) -> None:
    net = nnc.compile(MODELS / f"{name}.nn", threads=1)
    made = ship(net, target, tmp_path)
    inner = {"digits_mlp": "[64]", "lenet5": "[1][28][28]"}[name]
    (tmp_path / "main.c").write_text(PROGRAM)
    flags = ["-std=gnu99", "-O1", "-Wall", "-Wextra", "-Werror", f"-DINNER={inner}"]
    command = compile_c(target, tmp_path / "main.c", tmp_path, tmp_path / "main", *flags)
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stated = made.facts["stack"]
    for line in out.splitlines():
        function, deep, code = line.split()
        assert int(code) == 0, line
        assert int(deep) <= stated[function], (line, stated[function])
        assert stated[function] <= 3 * int(deep) + 512, (line, stated[function])


@pytest.mark.parametrize("closing", ["", " 2>&-"])
def test_frames_are_known_without_a_standard_error(closing: str, tmp_path: Path) -> None:
    """What LLVM says of them goes elsewhere, and nowhere else."""
    command = f"{sys.executable} -m nnc build {MODELS / 'xor.nn'} --train -o o --json{closing}"
    ran = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0 and "stack frame" not in ran.stderr, ran.stderr
    (facts,) = json.loads(ran.stdout)
    assert facts["stack"]["train"] > 500
