"""Reading data: the right columns from good files, and for every malformed one what was expected and what was found."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.compiler.manifest import DataSpec, Port
from nnc.compiler.types.sizes import symbol
from nnc.dsl.errors import ArgumentError, DataError, ResourceError
from nnc.runtime.call.arrays import wanted
from nnc.runtime.data import jsonl
from nnc.runtime.data.csv import read_table
from nnc.runtime.data.idx import read_idx
from nnc.runtime.data.npy import read_array
from nnc.runtime.data.npz import npz
from nnc.runtime.data.order import permutation, split
from nnc.runtime.data.sources import load
from nnc.runtime.data.table import Schema
from nnc.runtime.data.text import Vocabulary

B, D, H, W = map(symbol, "BDHW")
REAL = Path(__file__).parents[3] / "shared" / "data"


def read(
    source: str,
    *args: object,
    folder: Path = Path("."),
    validation: float = 0.0,
    seed: int = 0,
    override: Path | None = None,
    schema: Schema | None = None,
    **kwargs: object,
):
    return load(
        DataSpec(source, args, kwargs), folder, validation=validation, seed=seed, override=override, schema=schema
    )


def columns(dataset, *ports: Port) -> list[np.ndarray]:
    return dataset.for_training([p.name for p in ports], [wanted(p) for p in ports])


X, LABEL = Port("x", "f32", (B, 64)), Port("label", "i32", (B,))


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_ship_with_the_project():
    data = read("digits", seed=1)
    x, label = columns(data, X, LABEL)
    assert x.shape == (1438, 64) and x.dtype == np.float32 and x.min() == 0 and x.max() == 1
    assert len(data.held_out["label"]) == 359
    counts = np.bincount(np.concatenate([label, data.held_out["label"]]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    shares = np.bincount(data.held_out["label"]) / counts
    assert (abs(shares - 0.2) < 0.01).all()


def test_the_split_depends_on_the_seed_alone():
    a, b, c = (read("digits", seed=s, validation=0.1).held_out["x"] for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c) and len(a) == 180


@pytest.mark.parametrize("shape", [(B, 64), (B, D), (B, 1, 8, 8), (B, 8, 8), (B, H, W), (B, 1, H, W), (B, 4, 16)])
def test_an_image_is_shaped_as_the_input_wants_it(shape):
    data = read("digits")
    (x,) = columns(data, Port("x", "f32", shape))
    assert x.ndim == len(shape)
    np.testing.assert_array_equal(x.ravel(), data.train["x"].ravel())


def test_inputs_take_columns_by_name_or_in_order():
    data = read("digits")
    assert columns(data, LABEL)[0].ndim == 1
    image, digit = columns(data, Port("image", "f32", (B, 64)), Port("digit", "i32", (B,)))
    assert image.ndim == 2 and digit.ndim == 1
    with pytest.raises(DataError, match=r"columns `x`, `label`, the train block wants `a`, `b`, `c`"):
        columns(data, *(Port(n, "f32", (B,)) for n in "abc"))
    with pytest.raises(DataError, match=r"`x` wants f32\[B, 2, 2, 2, 2\], but digits\(\) gives f32\[1438, 1, 8, 8\]"):
        columns(data, Port("x", "f32", (B, 2, 2, 2, 2)))


def test_sizes_come_from_the_data():
    assert read("digits").sizes(["x"], [Port("x", "f32", (B, D))]) == {"D": 64}
    assert read("digits").sizes(["x"], [Port("x", "f32", (B, 1, H, W))]) == {"H": 8, "W": 8}


def test_unknown_sources_and_arguments():
    with pytest.raises(ArgumentError, match="no data source `digts`"):
        read("digts")
    with pytest.raises(ArgumentError, match="unexpected keyword argument 'bogus'"):
        read("csv", "a.csv", bogus=1)
    with pytest.raises(ArgumentError, match="missing a required argument: 'path'"):
        read("idx")
    wrong = {
        "idx": ((5,), "`path` must be str, not 5"),
        "csv": (("a", "b", 1), "`header` must be bool"),
        "text": (("a", True), "`context` must be int"),
        "npz": (("a",), "`x` must be str, not 2"),
    }
    for source, (args, what) in wrong.items():
        with pytest.raises(ArgumentError, match=what):
            read(source, *args, **({"x": 2} if source == "npz" else {}))


# --- order ------------------------------------------------------------------------------------------------------------


def test_permutations_are_permutations_and_never_change():
    assert permutation(8, seed=42, epoch=0).tolist() == [2, 3, 1, 7, 0, 6, 4, 5]  # the stream is fixed for all time
    assert sorted(permutation(1000, 1, 2)) == list(range(1000))
    assert not np.array_equal(permutation(100, 1, 2), permutation(100, 1, 3))
    assert not np.array_equal(permutation(100, 1, 2), permutation(100, 2, 2))
    assert permutation(3, seed=-1, epoch=0).shape == (3,)


@pytest.mark.parametrize("n", [2, 3, 10, 101])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_split_takes_each_example_once(n, share):
    classes = np.arange(n) % 3
    for c in (None, classes):
        keep, hold = split(n, share, 5, c)
        assert sorted([*keep, *hold]) == list(range(n))
        assert len(keep) and len(hold) == min(max(1, round(n * share)), n - 1)


# --- IDX --------------------------------------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray, code: int = 8) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = False, **changed: bytes) -> Path:
    folder.mkdir()
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    files = {
        "train-images-idx3-ubyte": idx_bytes(images),
        "train-labels-idx1-ubyte": idx_bytes(np.arange(5, dtype=np.uint8)),
        "t10k-images-idx3-ubyte": idx_bytes(images[:2]), "t10k-labels-idx1-ubyte": idx_bytes(np.uint8([7, 8])),
    } | {k.replace("_", "-"): v for k, v in changed.items()}  # fmt: skip
    for name, data in files.items():
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_idx_plain_and_packed(tmp_path, packed):
    data = read("idx", "mnist", folder=write_mnist(tmp_path / "mnist", packed).parent)
    x, label = columns(data, Port("x", "f32", (B, 16)), LABEL)
    np.testing.assert_array_equal(x[1], np.arange(16, 32, dtype=np.float32) / np.float32(255))
    assert label.tolist() == [0, 1, 2, 3, 4] and data.held_out["label"].tolist() == [7, 8]


@pytest.mark.parametrize(("code", "dtype"), [(9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_of_other_types(tmp_path, code, dtype):
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(np.array([[1, -2], [3, 4]], dtype), code))
    array = read_idx(path)
    assert array.tolist() == [[1, -2], [3, 4]] and array.dtype.isnative


@pytest.mark.parametrize(("data", "message"), [
    (b"", "found an empty file"),
    (b"\x89PNG", "found 89 50 4e 47"),
    (b"\0\0\x08", "found 00 00 08"),
    (b"\0\0\x07\x03", "an IDX header"),
    (b"\0\0\x08\x01" + struct.pack(">I", 5), "IDX data with 3 axes, found 1"),
    (b"\0\0\x08\x03" + struct.pack(">2I", 5, 4), "3 sizes after the magic number, found 2"),
    (b"\0\0\x08\x03" + struct.pack(">3I", 5, 4, 4) + bytes(79), "expected 80 bytes"),
    (b"\0\0\x08\x03" + struct.pack(">3I", 5, 4, 4) + bytes(81), "expected 80 bytes"),
    (b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "a file of 16 bytes"),
])  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_malformed_idx(tmp_path, data, message, packed):
    write_mnist(tmp_path / "m", packed)
    name = "train-images-idx3-ubyte" + ".gz" * packed
    (tmp_path / "m" / name).write_bytes(gzip.compress(data) if packed and data else data)
    with pytest.raises(DataError) as caught:
        read("idx", "m", folder=tmp_path)
    text = str(caught.value)
    assert caught.value.code == "E0621" and name in text
    assert message.replace("16 bytes", "") in text if packed else message in text


def test_idx_that_does_not_agree_with_itself(tmp_path):
    write_mnist(tmp_path / "a", train_labels_idx1_ubyte=idx_bytes(np.zeros(4, np.uint8)))
    with pytest.raises(DataError, match=r"expected 5 labels.*found 4"):
        read("idx", "a", folder=tmp_path)
    (tmp_path / "a" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="expected"):
        read("idx", "a", folder=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read("idx", "nowhere", folder=tmp_path)


@pytest.mark.parametrize(("labels", "code", "found"), [
    (np.array([1.5, 2, 3], ">f4"), 13, "1.5 in row 0"), (np.array([1, 2, np.nan], ">f8"), 14, "nan in row 2"),
    (np.array([1, 2**31, 3], ">f8"), 14, "2147483648.0 in row 1"),
])  # fmt: skip
def test_idx_labels_are_whole_numbers(tmp_path, labels, code, found):
    write_mnist(
        tmp_path / "mnist",
        **{
            "train-labels-idx1-ubyte": idx_bytes(labels, code),
            "train-images-idx3-ubyte": idx_bytes(np.zeros((3, 2, 2), np.uint8)),
        },
    )
    with pytest.raises(DataError, match=rf"labels.*expected labels that are whole numbers below 2\^31, found {found}"):
        read("idx", "mnist", folder=tmp_path)


@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_idx_images_have_pixels(tmp_path, size):
    write_mnist(
        tmp_path / "mnist",
        **{
            "train-images-idx3-ubyte": idx_bytes(np.zeros((3, *size), np.uint8)),
            "train-labels-idx1-ubyte": idx_bytes(np.zeros(3, np.uint8)),
        },
    )
    with pytest.raises(DataError, match=rf"images.*expected images with pixels, found {size[0]} x {size[1]}"):
        read("idx", "mnist", folder=tmp_path)


def test_a_gzip_bomb_and_a_torn_gzip(tmp_path):
    bomb = gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 1 << 14, 1 << 10, 1 << 10) + bytes(1 << 20))
    path = tmp_path / "bomb.gz"
    path.write_bytes(bomb)
    with pytest.raises(DataError, match="expected 17,179,869,184 bytes"):
        read_idx(path)
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((9, 9), np.uint8)))[:-12])
    with pytest.raises(DataError, match=r"complete gzip stream|bytes of data"):
        read_idx(path)


# --- csv --------------------------------------------------------------------------------------------------------------


def table(tmp_path: Path, text: str, target: object = None, **options: object):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    return read("csv", "t.csv", folder=tmp_path, target=target, **options)


def test_csv_with_classes(tmp_path):
    data = table(tmp_path, "a,kind,b\n1,pear,2\n3,apple,4\n5,pear,6\n", "kind")
    x, label = columns(data, Port("features", "f32", (B, D)), Port("what", "i32", (B,)))
    assert x.tolist() == [[1, 2], [3, 4], [5, 6]] and label.tolist() == [1, 0, 1]
    assert data.sizes(["features", "what"], [Port("features", "f32", (B, D)), Port("what", "i32", (B,))]) == {"D": 2}


def test_csv_by_column_names(tmp_path):
    data = table(tmp_path, "\ufeffx, y\r\n1,2\r\n\r\n3,4.5\r\n")
    x, y = columns(data, Port("x", "f32", (B, 1)), Port("y", "f32", (B,)))
    assert x.tolist() == [[1], [3]] and y.tolist() == [2, 4.5]


def test_csv_targets_that_are_numbers(tmp_path):
    assert table(tmp_path, "a,y\n1,2\n1,3\n", "y").train["y"].dtype == np.int64
    assert table(tmp_path, "a,y\n1,2\n1,3.5\n", "y").train["y"].dtype == np.float64
    assert table(tmp_path, "1;5\n2;6\n", -1, header=False, delimiter=";").train["c1"].tolist() == [5, 6]
    assert table(tmp_path, "junk\na,b\n1,2\n", skip=1).train["b"].tolist() == [2]


@pytest.mark.parametrize(("text", "message"), [
    ("", "expected a header line, found an empty file"),
    ("a,b\n", "expected rows below the header, found none"),
    ("a,b\n1,2\n3\n", "expected 2 columns (`a`, `b`) in line 3, found 1"),
    ("a,b\n1,2,3\n", "expected 2 columns (`a`, `b`) in line 2, found 3"),
    ("a,b\n1,\n", "expected a number for `b` in line 2, found an empty cell"),
    ("a,b\n1,red\n", "expected a number for `b` in line 2, found 'red'"),
    ("a,a\n1,2\n", "found `a` twice"),
    ("1,2\n3,4\n", "header = false"),
    ("a;b\n1;2\n", 'say `delimiter = ";"`'),
    ("a\tb\n1\t2\n", 'say `delimiter = "\\t"`'),
    ('a,b\n1,"2\n', "expected a csv table"),
    ("a,,b\n1,2,3\n", "expected a name for each column, found none for column 2"),
    (",a\n0,2\n", "`index=False`"),
    ("a,b,\n1,2,\n", "a header that ends with a comma has one more"),
    ("a,b\n1,2,\n", "the line ends with a comma"),
    ("\n\na,b\n1,2\n", "say `skip = 2` in `csv(...)`"),
    ("# made by hand\na,b\n1,2\n", "expected a header line at line 1, found a blank line or a comment"),
    ("a,b\n1,1_234\n", "expected a number for `b` in line 2, found '1_234'"),
])  # fmt: skip
def test_malformed_csv(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        table(tmp_path, text)
    assert message in str(caught.value) and caught.value.exit_code == 4


def test_lines_of_csv_to_skip(tmp_path):
    with pytest.raises(DataError, match=r"E0612.*must be at least 0, got -1"):
        table(tmp_path, "a,b\n1,2\n", skip=-1)
    with pytest.raises(DataError, match="expected more than the 1000000000000 lines to skip, found 2"):
        table(tmp_path, "a,b\n1,2\n", skip=10**12)


def test_a_single_number_is_no_column(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.float32(1), label=np.zeros(3, np.int32))
    with pytest.raises(DataError, match=r"E0613.*`x` wants f32\[B, 64\], but .* gives one number"):
        columns(read("npz", "a.npz", folder=tmp_path), X, LABEL)


@pytest.mark.parametrize("cell", ["NA", "$5.20", "12%", '"1,200"', '"10,5"', "sum", "1_234"])
def test_a_text_among_numbers_is_no_class(tmp_path, cell):
    with pytest.raises(DataError, match=r"expected a number for `y` in line 4, found ") as caught:
        table(tmp_path, f"a,y\n1,2\n2,3\n3,{cell}\n4,5\n", "y")
    assert cell.strip('"') in str(caught.value) and "classes = true" in str(caught.value)
    data = table(tmp_path, f"a,y\n1,2\n2,3\n3,{cell}\n4,5\n", "y", classes=True)
    assert sorted(data.train["y"]) == [0, 1, 2, 3] and set(data.schema.classes) == {"2", "3", "5", cell.strip('"')}


def test_a_number_among_names_is_no_class(tmp_path):
    with pytest.raises(DataError, match=r"expected a name, as in most lines, for `kind` in line 3, found '7'"):
        table(tmp_path, "a,kind\n1,fig\n2,7\n3,pear\n", "kind")


def test_what_is_learned_as_a_number_is_no_text(tmp_path):
    """The declared type of the target decides."""
    data = table(tmp_path, "a,price\n1,$5.20\n2,$6.10\n", "price")
    x, y = Port("x", "f32", (B, 1)), Port("price", "f32", (B,))
    with pytest.raises(DataError, match=r"`price` wants f32\[B\], but `price` of csv.* is text: '\$5.20' in line 2"):
        columns(data, x, y)
    assert columns(data, x, Port("price", "i32", (B,)))[1].tolist() == [0, 1]


def test_csv_targets_that_are_missing(tmp_path):
    with pytest.raises(DataError, match="expected a column `c`, found `a`, `b`"):
        table(tmp_path, "a,b\n1,2\n", "c")
    with pytest.raises(DataError, match="a value for `b` in line 3"):
        table(tmp_path, "a,b\n1,x\n1, \n", "b")


def test_another_csv_is_read_by_the_names_and_classes_of_the_first(tmp_path):
    schema = table(tmp_path, "a,kind,b\n1,pear,2\n3,apple,4\n5,fig,6\n", "kind").schema
    assert schema == Schema(("a", "b"), "kind", ("apple", "fig", "pear"))

    def again(text: str):
        (tmp_path / "u.csv").write_text(text)
        return read_table(tmp_path / "u.csv", schema=schema)

    found = again("kind,b,a\npear,20,10\npear,40,30\n").columns
    assert {n: c.tolist() for n, c in found.items()} == {"a": [10, 30], "b": [20, 40], "kind": [2, 2]}
    for text, message in (
        ("kind,b\npear,1\n", "`a` is missing"), ("a,b,c,d,kind\n1,2,3,4,fig\n", "`c`, `d` were not there"),
        ("a,b,kind\n1,2,fig\n1,2,kiwi\n", "the class 'kiwi' in row 2"), ("a,b\n1,2\n", "a column `kind`"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            again(text)
        assert message in str(caught.value), text
    with pytest.raises(DataError, match="the model knows `apple`, `fig`, `pear`"):
        again("a,b,kind\n1,2,kiwi\n")
    numbers = Schema(("a",), "y")
    (tmp_path / "t.csv").write_text("a,y\n1,red\n")
    with pytest.raises(DataError, match="a number for `y` in row 1, found 'red'"):
        read_table(tmp_path / "t.csv", schema=numbers)


def test_a_table_of_another_width_is_named_with_its_columns(tmp_path):
    data = table(tmp_path, "a,b,c\n1,2,3\n")
    with pytest.raises(DataError, match=r"`x` wants f32\[B, 2\], but csv.* has 3 feature columns: `a`, `b`, `c`"):
        columns(data, Port("x", "f32", (B, 2)))


def test_a_line_of_values_is_no_header(tmp_path):
    for text, target in (("1,2,fig\n3,4,pear\n", -1), ("1,2,fig\n3,4,pear\n", "kind"), ("1,2\n3,4\n", None)):
        with pytest.raises(DataError, match="header = false"):
            table(tmp_path, text, target)
    assert list(table(tmp_path, "0,1,kind\n3,4,5\n", "kind").train) == ["0", "1", "kind"]
    assert table(tmp_path, "1,2,fig\n3,4,pear\n", -1, header=False).train["c2"].tolist() == [0, 1]


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        read("csv", "t.csv", folder=tmp_path)
    with pytest.raises(DataError, match=r"E0620.*no such file"):
        read("csv", "nowhere.csv", folder=tmp_path)
    with pytest.raises(DataError, match="E0620"):
        read("csv", ".", folder=tmp_path)


def test_csv_may_be_packed_and_be_overridden(tmp_path):
    (tmp_path / "u.csv.gz").write_bytes(gzip.compress(b"a,y\n1,0\n2,1\n"))
    data = read("csv", "missing.csv", folder=tmp_path, target="y", override=tmp_path / "u.csv.gz")
    assert data.train["y"].tolist() == [0, 1]
    data = read("digits", folder=tmp_path, override=tmp_path / "u.csv.gz", validation=0.5)
    assert list(data.train) == ["a", "y"] and len(data.train["a"]) == len(data.held_out["a"]) == 1


# --- npz --------------------------------------------------------------------------------------------------------------


def test_npz(tmp_path):
    x = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.arange(3, dtype=">i4"))
    data = read("npz", "a.npz", folder=tmp_path, x="x", label="y")
    np.testing.assert_array_equal(data.train["x"], x)
    assert data.train["label"].tolist() == [0, 1, 2] and data.by_position == ("x", "label")
    assert list(read("npz", "a.npz", folder=tmp_path).train) == ["x", "y"]
    with pytest.raises(DataError, match=r"expected an array `z`, found `x`, `y`"):
        read("npz", "a.npz", folder=tmp_path, x="z")


def test_npz_with_its_own_test_set(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((4, 2)), x_test=np.ones((2, 2)))
    data = read("npz", "a.npz", folder=tmp_path)
    assert data.train["x"].shape == (4, 2) and data.held_out["x"].shape == (2, 2)


def test_npz_columns_must_be_equally_long(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.ones(3))
    with pytest.raises(DataError, match="as many rows in each column, found x: 4, y: 3"):
        read("npz", "a.npz", folder=tmp_path)


def npy(header: dict, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    text = repr(header).encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(("member", "message"), [
    (npy({"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**6)}, b"\0" * 64), "6.94 EB"),
    (npy({"descr": "<f8", "fortran_order": False, "shape": (4,)}, b"\0" * 31), "expected 32 B"),
    (npy({"descr": "<f8", "fortran_order": False, "shape": (4,)}, b"\0" * 33), "found more"),
    (npy({"descr": "|O", "fortran_order": False, "shape": (1,)}, pickle.dumps([print])), "pickled objects"),
    (npy({"descr": "<U4", "fortran_order": False, "shape": (1,)}, b"\0" * 16), "an array of numbers"),
    (npy({"descr": "<f8"}, b""), "an npy header"),
    (b"nonsense", "an npy header"),
    (npy({"descr": "<f4", "fortran_order": False, "shape": (-8, -4)}, b"\0" * 128), "can have, found [-8, -4]"),
    (npy({"descr": "<f4", "fortran_order": False, "shape": (True, 4)}, b"\0" * 16), "can have, found [True, 4]"),
    (npy({"descr": "<f4", "fortran_order": False, "shape": (1,) * 33}, b"\0" * 4), "a shape that an array can have"),
    (npy({"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**40, 0)}, b""), "a shape that an array can have"),
    (b"\x93NUMPY\x01\x00" + struct.pack("<H", 5000) + b"(" * 5000, "an npy header"),
    (npy({"descr": "<f8", "fortran_order": False, "shape": (0,)}, b"", b"\x07\x00"), "npy version"),
])  # fmt: skip
def test_malformed_npz(tmp_path, member, message):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as z:
        z.writestr("x.npy", member)
    with pytest.raises(DataError) as caught:
        read("npz", "a.npz", folder=tmp_path)
    assert message in str(caught.value) and "a.npz[x]" in str(caught.value)


def test_npz_that_is_torn_or_is_none(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).normal(size=1000))
    good = buffer.getvalue()
    path = tmp_path / "a.npz"
    for bad in (b"", b"PK\x03\x04", good[: len(good) // 2], good[:100] + b"\xff" * 50 + good[150:]):
        path.write_bytes(bad)
        with pytest.raises(DataError):
            read("npz", "a.npz", folder=tmp_path)


# --- CIFAR-10, text ---------------------------------------------------------------------------------------------------


def test_cifar10(tmp_path):
    records = np.zeros((3, 3073), np.uint8)
    records[:, 0] = [1, 2, 9]
    records[:, 1] = 255
    (tmp_path / "data_batch_1.bin").write_bytes(records.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records[:1].tobytes())
    data = read("cifar10", ".", folder=tmp_path)
    assert data.train["x"].shape == (3, 3, 32, 32) and data.train["x"][0, 0, 0, 0] == 1
    assert data.train["label"].tolist() == [1, 2, 9]
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x0a" * 3073)
    with pytest.raises(DataError, match="labels from 0 to 9, found 10"):
        read("cifar10", ".", folder=tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x00" * 3072)
    with pytest.raises(DataError, match="records of 3073 bytes, found 3,072 bytes"):
        read("cifar10", ".", folder=tmp_path)


def test_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("hello, wörld", encoding="utf-8")
    data = read("text", "t.txt", folder=tmp_path, context=3, validation=0.3)
    known = Vocabulary(data.schema.characters)
    assert known.characters == " ,dehlorwö"
    assert [known.decode(row) for row in data.train["x"]] == ["hel", "lo,"] and data.train["x"].dtype == np.int32
    assert [known.decode(row) for row in data.train["y"]] == ["ell", "o, "]
    assert [known.decode(row) for row in data.held_out["x"]] == [" wö"]
    assert known.encode("low").tolist() == [5, 6, 8] and known.decode(known.encode("öl")) == "öl"
    assert known.encode("").shape == (0,) and known.decode([]) == ""
    with pytest.raises(DataError, match="at least 13 characters, one more than the context, found 12"):
        read("text", "t.txt", folder=tmp_path, context=12)
    with pytest.raises(DataError, match="at least 1, got 0"):
        read("text", "t.txt", folder=tmp_path, context=0)
    with pytest.raises(ArgumentError, match=r"E0603.*does not know the character 'x' \(at 2\)"):
        known.encode("hex")
    with pytest.raises(ArgumentError, match="there are 10 characters, none has the number 10"):
        known.decode([3, 10])
    with pytest.raises(ArgumentError, match="whole numbers, but these are float64"):
        known.decode([1.0])
    path.write_bytes(b"hello\xff")
    with pytest.raises(DataError, match="UTF-8 text, found byte 0xff at 5"):
        read("text", "t.txt", folder=tmp_path, context=3)


def test_another_text_is_read_by_the_vocabulary_of_the_first(tmp_path):
    (tmp_path / "a.txt").write_text("abcd" * 9)
    (tmp_path / "b.txt").write_text("dada" * 9)
    (tmp_path / "c.txt").write_text("date" * 9)
    (tmp_path / "m.nn").write_text("""
model M(x: i32[B, T]) -> (y: f32[B, T, 4]) { y = x |> Embedding(4, 4) }
train M(x, label: i32[B, T]) {
    loss = mean(cross_entropy(y, label))
    optimizer = SGD(lr = 0.1)
    data = text("a.txt", context = 4)
    epochs = 1
}""")
    net = nnc.compile(tmp_path / "m.nn")
    with pytest.raises(ArgumentError, match=r"E0613.*M has no vocabulary"):
        net.vocabulary.encode("a")
    net.fit()
    assert net.vocabulary == Vocabulary("abcd")
    net.save(tmp_path / "m.nnw")
    net.reset()
    net.load(tmp_path / "m.nnw")
    assert net.vocabulary == Vocabulary("abcd")
    assert read("text", "b.txt", folder=tmp_path, context=4, schema=net.schema).train["x"][0].tolist() == [3, 0, 3, 0]
    with pytest.raises(DataError, match="the 4 characters the model was trained on, found 'e'"):
        read("text", "c.txt", folder=tmp_path, context=4, schema=net.schema)


@pytest.mark.skipif(
    not all((REAL / n).is_dir() for n in ("fashion-mnist", "cifar10")),
    reason="Fashion-MNIST and CIFAR-10 are not in ../shared/data",
)
def test_real_files():
    data = read("idx", "fashion-mnist", folder=REAL)
    assert data.train["x"].shape == (60000, 1, 28, 28) and data.held_out["x"].shape == (10000, 1, 28, 28)
    assert np.bincount(data.train["label"]).tolist() == [6000] * 10
    assert read("cifar10", "cifar10", folder=REAL).held_out["x"].shape[1:] == (3, 32, 32)


@pytest.mark.parametrize("kind", ["idx", "idx.gz", "npz", "npy", "csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    """Whatever bytes are changed, cut or put in: data of the right form, or a DataError."""
    rng = np.random.default_rng(3)
    table = "a,b,kind\n" + "".join(f"{a:.3f},{b},{'xyz'[b % 3]}\n" for b, a in enumerate(rng.normal(size=9)))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=rng.normal(size=(5, 3)), y=np.arange(5))
    images = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    array = io.BytesIO()
    np.save(array, images)
    lines = "".join(
        f'{{"a": {a:.3f}, "m": [[1, {b}]], "kind": "{"xyz"[b % 3]}"}}\n' for b, a in enumerate(rng.normal(size=9))
    )
    good = {
        "npy": array.getvalue(),
        "jsonl": lines.encode(),
        "idx": idx_bytes(images),
        "npz": buffer.getvalue(),
        "csv": table.encode(),
    }
    data = good[kind.removesuffix(".gz")]
    data = gzip.compress(data) if kind.endswith("gz") else data
    path = tmp_path / f"file.{kind}"
    refused = 0
    for _ in range(300):
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), rng.integers(1, 4)):
            match rng.integers(4):
                case 0:
                    bad[at % len(bad)] ^= 1 << int(rng.integers(8))
                case 1:
                    bad[at % len(bad)] = int(rng.integers(256))
                case 2:
                    del bad[at % len(bad) :]
                    bad += b"\0"
                case _:
                    bad[at % len(bad) : at % len(bad)] = rng.bytes(3)
        path.write_bytes(bad)
        try:
            match kind.removesuffix(".gz"):
                case "idx":
                    assert read_idx(path, 3).ndim == 3
                case "npz":
                    npz(path)
                case "npy":
                    read_array(path)
                case "jsonl":
                    assert len({len(c) for c in jsonl.read_table(path, "kind").columns.values()}) == 1
                case _:
                    assert len({len(c) for c in read_table(path, "kind").columns.values()}) == 1
        except DataError:
            refused += 1
    assert refused > 30


def test_a_packed_text_that_never_ends_is_refused_in_time(tmp_path, monkeypatch):
    """Deflate makes a thousand bytes of one: memory is not filled before it is noticed."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1" * (40 << 20)))
    with pytest.raises(DataError, match=r"E0621.*expected lines of at most 16,777,216 characters, found a longer one"):
        read("csv", path.name, folder=tmp_path)
    monkeypatch.setattr("nnc.runtime.data.text.memory_limit", lambda: 16 << 20)
    monkeypatch.setattr("nnc.runtime.call.arrays.memory_limit", lambda: 16 << 20)
    monkeypatch.setattr("nnc.runtime.call.arrays._SMALL", 0)
    with pytest.raises(ResourceError, match="E0605"):
        read("text", path.name, folder=tmp_path)
