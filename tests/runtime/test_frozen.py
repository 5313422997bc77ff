"""Arrays of files that a program has inside: their values, their content as part of what was compiled, and refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import SourceError
from nnc.runtime.cli import main

T = np.random.default_rng(0).normal(size=(3, 4))
X = np.random.default_rng(1).normal(size=(4,)).astype(np.float32)


def program(value: str, type: str = "f32[3, 4]") -> str:
    return f"const t: {type} = {value}\nfn f(x: f32[4]) -> f32[3] = cast(t, f32) @ x\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", T)
    np.save("fortran.npy", np.asfortranarray(T.astype(np.float32)))
    np.savez("all.npz", t=T, other=T[0])
    np.savez_compressed("packed.npz", t=T)
    np.savetxt("t.csv", T, delimiter=",", fmt="%.17g")
    return tmp_path


@pytest.mark.parametrize(
    "value",
    ['file("t.npy")', 'file("fortran.npy")', 'file("all.npz", "t")', 'file("packed.npz", "t")', 'file("t.csv")'],
)
def test_the_numbers_of_a_file(value: str) -> None:
    np.testing.assert_allclose(nnc.function(program(value))(X), T @ X, rtol=1e-5)
    exact = nnc.function(program(value).replace("cast(t, f32)", "t"), dtype="f64")(X.astype(np.float64))
    if "fortran" not in value:  # which has f32 inside
        np.testing.assert_allclose(exact, T @ X.astype(np.float64), rtol=1e-15)


@pytest.mark.parametrize("type", ["f32", "f64"])
def test_halves_are_widened(type: str) -> None:
    """f16; bf16 has no name in NumPy's files, which call it two bytes of anything."""
    half = T.astype(np.float16)
    np.save("half.npy", half)
    np.savez("half.npz", t=half)
    for value in ('file("half.npy")', 'file("half.npz", "t")'):
        f = nnc.function(f"const t: {type}[3, 4] = {value}\nfn f(i: i32[N]) -> {type}[N, 4] = t[i]\n")
        np.testing.assert_array_equal(f(np.arange(3, dtype=np.int32)), half.astype(np.float64))
    np.save("brain.npy", half.view("V2"))
    with pytest.raises(SourceError, match=r"E0206.*found \|V2(.|\n)*bfloat16.*save it as float32"):
        nnc.function(program('file("brain.npy")'))


@pytest.mark.parametrize("type", ["i32", "i64", "bool", "f64"])
def test_other_types(type: str) -> None:
    whole = np.arange(12).reshape(3, 4) % (2 if type == "bool" else 12)
    np.save("w.npy", whole.astype({"i32": np.int64, "i64": np.uint8, "bool": np.bool_, "f64": np.int32}[type]))
    text = program('file("w.npy")', f"{type}[3, 4]")
    np.testing.assert_allclose(nnc.function(text)(X), whole @ X, rtol=1e-5)
    if type != "bool":
        np.savetxt("w.csv", whole, delimiter=", ", fmt="%d")
        np.testing.assert_allclose(nnc.function(text.replace("npy", "csv"))(X), whole @ X, rtol=1e-5)


def test_one_axis_of_a_table_is_a_line_or_a_column() -> None:
    for text in ("1, 2, 3, 4\n", "1\n2\n3\n\n4\n"):
        Path("v.csv").write_text(text)
        f = nnc.function('const v: f32[4] = file("v.csv")\nfn f(x: f32[4]) -> f32[4] = x * v\n')
        np.testing.assert_allclose(f(X), X * [1, 2, 3, 4])


def test_sizes_may_be_constants_and_numbers_a_list() -> None:
    text = "const n = 2\nconst edge: f32[n + 1] = [-1, 0, 1]\nfn f(x: f32[3]) -> f32[3] = x * edge / 2\n"
    np.testing.assert_array_equal(nnc.function(text)([2, 2, 4]), [-1, 0, 2])


def test_another_content_is_another_program() -> None:
    """Also where code and manifest come from the cache."""
    Path("f.nn").write_text(program('file("t.npy")'))
    for k in (1, 2, 2, 1):
        np.save("t.npy", k * T)
        f = nnc.function("f.nn")
        np.testing.assert_allclose(f(X), k * T @ X, rtol=1e-5)
        os.remove("t.npy")
        np.testing.assert_allclose(f(X), k * T @ X, rtol=1e-5)  # the code has it inside


def test_the_path_is_that_of_the_file_that_says_so() -> None:
    Path("lib").mkdir()
    np.save("lib/t.npy", 2 * T)
    Path("lib/tables.nn").write_text('const t: f32[3, 4] = file("t.npy")\n')
    Path("f.nn").write_text('import "lib/tables.nn"\nfn f(x: f32[4]) -> f32[3] = t @ x\n')
    np.testing.assert_allclose(nnc.function("f.nn")(X), 2 * T @ X, rtol=1e-5)


def test_inside_a_scan_and_a_gradient() -> None:
    text = """const t: f32[3, 3] = file("s.npy")
fn f(x: f32[3]) -> f32[3] {
    y = x
    scan k in 0..4 { y = tanh(t @ y) }
    return grad(sum(y), x)
}
"""
    s = T[:, :3]
    np.save("s.npy", s)
    step = 1e-6
    x = np.array([0.3, -0.2, 0.5])

    def value(x: np.ndarray) -> float:
        for _ in range(4):
            x = np.tanh(s @ x)
        return float(x.sum())

    expected = [(value(x + step * e) - value(x - step * e)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(nnc.function(text, dtype="f64")(x), expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("value", "type", "message"),
    [
        ('file("t.npy")', "f32[4, 3]", r"`t` of t.npy wants f32\[4, 3\], got f64\[3, 4\]"),
        ('file("t.npy")', "i32[3, 4]", r"`t` of t.npy wants i32\[3, 4\], got f64\[3, 4\]"),
        ('file("huge.npy")', "f32[2]", "with the value 1e\\+300, which f32 cannot hold"),
        ('file("objects.npy")', "f32[2]", "expected an array of numbers, found pickled objects"),
        ('file("no.npy")', "f32[2]", "no.npy: no such file"),
        ('file("folder.npy")', "f32[2]", "folder.npy: is a directory"),
        ('file("link.npy")', "f32[3, 4]", "link.npy: a link to another file"),
        ('file("t.txt")', "f32[2]", "only files whose names end in .npy, .npz, .csv are read"),
        ('file("/etc/passwd")', "f32[2]", "only files whose names end in"),
        ('file("bad.npy")', "f32[2]", "bad.npy: expected an npy header"),
        ('file("cut.npy")', "f32[3, 4]", "cut.npy: expected 96 B of data"),
        ('file("all.npz")', "f32[3, 4]", "all.npz: expected the name of an array, found `t`, `other`"),
        ('file("all.npz", "u")', "f32[3, 4]", "all.npz: expected an array `u`, found `t`, `other`"),
        ('file("t.npy", "t")', "f32[3, 4]", "t.npy: expected an .npz"),
        ('file("bad.npz", "t")', "f32[3, 4]", "bad.npz: expected a complete npz archive"),
        ('file("words.csv")', "f32[2, 2]", "words.csv: expected a number in line 1, found 'a'"),
        ('file("ragged.csv")', "f32[2, 2]", "ragged.csv: expected 2 numbers in line 2, found 3"),
        ('file("half.csv")', "i32[2]", "half.csv: expected whole numbers, found 0.5"),
    ],
)
def test_refused_with_path_expected_and_found(value: str, type: str, message: str) -> None:
    np.save("huge.npy", [1, 1e300])
    np.save("objects.npy", np.array([{}, 1], object), allow_pickle=True)
    Path("folder.npy").mkdir()
    Path("link.npy").symlink_to("t.npy")
    for name in ("bad.npy", "bad.npz"):
        Path(name).write_text("hello")
    Path("cut.npy").write_bytes(Path("t.npy").read_bytes()[:-1])
    Path("words.csv").write_text("a,b\n1,2\n")
    Path("ragged.csv").write_text("1,2\n1,2,3\n")
    Path("half.csv").write_text("1,0.5\n")
    with pytest.raises(SourceError, match=f"(?s)E0206.*{message}") as e:
        nnc.function(program(value, type))
    assert e.value.diagnostics[0].labels[0].span.text == value


def test_what_is_too_large() -> None:
    np.save("large.npy", np.zeros(2**18 + 1))
    with pytest.raises(SourceError, match=r"E0502.*has 262,145 elements; of a file it may have 262,144"):
        nnc.function('const t: f32[262145] = file("large.npy")\nfn f(x: f32) -> f32 = x + t[0]\n')
    with open("sparse.npy", "wb") as f:
        f.truncate((64 << 20) + 1)
    with pytest.raises(SourceError, match=r"E0206.*sparse.npy: larger than 64 MB"):
        nnc.function(program('file("sparse.npy")'))


def test_what_unpacks_to_much_is_not_unpacked() -> None:
    np.savez_compressed("bomb.npz", t=np.zeros((9 << 20,)))
    with pytest.raises(SourceError, match=r"E0206.*bomb.npz\[t\]: expected at most 64.0 MB, found 72.0 MB"):
        nnc.function(program('file("bomb.npz", "t")'))
    Path("long.csv").write_text("0," * (1 << 19))
    with pytest.raises(SourceError, match=r"E0206.*long.csv: expected f32\[3, 4\] of numbers, found more in line 1"):
        nnc.function(program('file("long.csv")'))


def test_a_file_of_ones_own_name() -> None:
    text = "fn file(x: f32[4]) -> f32[4] = 2 * x\nfn g(x: f32[4]) -> f32[4] = file(x)\n"
    np.testing.assert_array_equal(nnc.function(text)(X), 2 * X)


NET = """const basis: f32[3, 4] = file("t.npy")
model Net(x: f32[B, 4]) -> (y: f32[B, 2]) {
    y = x @ basis.T |> Dense(2)
}

train Net(x, t: f32[B, 2]) {
    loss = mean(squared_error(y, t))
    optimizer = SGD(lr = 0.01)
    data = npz("data.npz")
    epochs = 2
}

export basis_of(x: f32[1]) -> f32[3, 4] = basis * x[0]
"""


def test_a_run_keeps_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", x=np.ones((8, 4)), t=np.ones((8, 2)))
    Path("net.nn").write_text(NET)
    assert main(["train", "net.nn", "--out", "run", "--quiet"]) == 0
    Path("in.csv").write_text("a,b,c,d\n1,2,3,4\n")

    def predicted() -> str:
        capfd.readouterr()
        assert main(["predict", "run", "in.csv"]) == 0
        out, err = capfd.readouterr()
        assert ("t.npy is not as it was" in err) == changed
        return out

    changed = False
    before = predicted()
    np.save("t.npy", 5 * T)
    changed = True
    assert predicted() == before
