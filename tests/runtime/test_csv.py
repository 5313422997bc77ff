"""csv columns that are no plain numbers: whole ones for embeddings, names, gaps, decimal commas; each by an option or a
declared type, never by a guess, and read again as in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.dsl.errors import DataError
from nnc.runtime.cli import main
from nnc.runtime.data.csv import CSV

MODEL = """
model Net(%s) -> (price: f32[B]) {
    %s
    price = x |> Dense(1) |> squeeze(axis = 1)
}

train Net(%s, y: f32[B]) {
    loss = mean(squared_error(price, y))
    optimizer = SGD(lr = 0.001)
    data = csv("t.csv", target = "y"%s)
    epochs = 1
}
"""
NAMED = ("x: f32[B, 2], city: i32[B]", "x = concat([x, one_hot(city, 3)], axis = 1)", "x, city")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def net(table: str, options: str = "", parts: tuple[str, str, str] = NAMED) -> nnc.Model:
    Path("t.csv").write_text(table)
    Path("net.nn").write_text(MODEL % (*parts, options))
    return nnc.compile("net.nn")


def columns(model: nnc.Model) -> list[list]:
    call = model.entry("train")
    return [c.tolist() for c in model.load_dataset().for_training(model.train_spec.inputs, call.wants)]


CITIES = "a,city,b,y\n1,Rome,2,10\n3,Bern,4,20\n5,Rome,6,30\n7,Oslo,8,40\n"


def test_names_are_numbered_for_the_input_of_their_name() -> None:
    model = net(CITIES, ', categories = ["city"]')
    assert columns(model) == [[[1, 2], [3, 4], [5, 6], [7, 8]], [2, 0, 2, 1], [10, 20, 30, 40]]
    model.fit()
    assert dict(model.schema.categories) == {"city": ("Bern", "Oslo", "Rome")}
    one = net(CITIES.replace("city", "y1"), ', categories = "y1"', ("y1: i32[B]", "x = one_hot(y1, 3)", "y1"))
    assert columns(one)[0] == [2, 0, 2, 1]


def test_what_is_left_when_all_features_have_inputs_of_their_names_is_the_target() -> None:
    single = ("a: f32[B], b: f32[B], city: i32[B]", "x = stack([a, b, cast(city, a)], axis = 1)", "a, b, city")
    Path("t.csv").write_text(CITIES.replace(",y\n", ",cost\n"))
    options = ', categories = ["city"]'
    Path("net.nn").write_text((MODEL % (*single, options)).replace('target = "y"', 'target = "cost"'))
    model = nnc.compile("net.nn")
    assert columns(model) == [[1, 3, 5, 7], [2, 4, 6, 8], [2, 0, 2, 1], [10, 20, 30, 40]]


def test_a_run_maps_names_as_in_training(capfd: pytest.CaptureFixture[str]) -> None:
    net(CITIES, ', categories = ["city"]')
    assert main(["train", "net.nn", "--out", "run", "--quiet"]) == 0
    Path("new.csv").write_text("city,b,a\nOslo,8,7\nRome,2,1\n")
    capfd.readouterr()
    assert main(["predict", "run", "new.csv"]) == 0
    got = [float(line) for line in capfd.readouterr().out.splitlines()[1:]]
    model = nnc.compile("net.nn")
    model.load("run")
    expected = model.predict(x=[[7, 8], [1, 2]], city=np.array([1, 2]))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert main(["eval", "run", "--data", "t.csv"]) == 0
    Path("new.csv").write_text("city,b,a\nOslo,8,7\nParis,2,1\n")
    assert main(["predict", "run", "new.csv"]) == 4
    err = capfd.readouterr().err
    assert "E0613" in err and "'Paris' in row 2 was not there in training" in err
    assert "`Bern`, `Oslo`, `Rome` as `city`" in err


def test_whole_numbers_for_whole_inputs() -> None:
    """What an embedding takes; the declared type of the input decides, and a fraction is refused."""
    table = "user,film,age,y\n3,0,1.5,1\n0,2,2.5,2\n"
    parts = (
        "user: i32[B], film: i32[B]",
        "x = concat([user |> Embedding(4, 2), film |> Embedding(3, 2)], axis = 1)",
        "user, film",
    )
    assert columns(net(table, "", parts))[:2] == [[3, 0], [0, 2]]
    mixed = ("x: f32[B, 1], user: i32[B], film: i32[B]", "x = x * cast(expand(user + film, 1), f32)", "x, user, film")
    assert columns(net(table, "", mixed)) == [[[1.5], [2.5]], [3, 0], [0, 2], [1, 2]]
    all_whole = ("k: i32[B, 2]", "x = cast(k, f32)", "k")
    assert columns(net("a,b,y\n1,2,0\n3,4,1\n", "", all_whole))[0] == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match=r"E0613.*`user` wants i32\[B\], but `user` of csv.* has 0.5"):
        columns(net(table.replace("0,2,2.5", "0.5,2,2.5"), "", mixed))
    with pytest.raises(DataError, match=r"E0613.*`k` wants i32\[B, 2\], but the features `a`, `b` of csv.* has 2.5"):
        columns(net("a,b,y\n1,2.5,0\n", "", all_whole))
    with pytest.raises(nnc.NncError, match=r"E0603.*3000000000"):
        model = net("a,b,y\n1,3000000000,0\n", "", all_whole)
        model.fit()


GAPS = "a,b,y\n1,,1\n3,10,2\n,30,3\n8,20,4\n"
TWO = ("x: f32[B, 2]", "", "x")


@pytest.mark.parametrize(
    ("missing", "a", "b"), [('"mean"', 4, 20), ('"median"', 3, 20), ("0", 0, 0), ("-1.5", -1.5, -1.5)]
)
def test_gaps_are_filled_as_asked(missing: str, a: float, b: float) -> None:
    model = net(GAPS, f", missing = {missing}", TWO)
    assert columns(model)[0] == [[1, b], [3, 10], [a, 30], [8, 20]]
    model.fit()
    model.save("a.nnw")
    again = nnc.compile("net.nn")
    again.load("a.nnw")
    assert again.schema == model.schema and dict(again.schema.fill) == {"a": a, "b": b}


def test_gaps_are_filled_by_what_is_trained_on(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [f"{k},{k if k % 3 else ''},{k}" for k in range(30)]
    text = "a,b,y\n" + "\n".join(rows) + "\n"
    model = net(text, ', missing = "mean"', TWO)
    Path("net.nn").write_text(Path("net.nn").read_text().replace("epochs = 1", "epochs = 1\n    validation = 0.4"))
    model = nnc.compile("net.nn")
    data = model.load_dataset()
    kept = [k for k in data.train_rows if k % 3]
    assert data.schema.fill["b"] == pytest.approx(np.mean(kept)) and len(data.train_rows) == 18
    gaps = [b for a, b in zip(data.held_out["a"], data.held_out["b"], strict=True) if a % 3 == 0]
    assert gaps == [data.schema.fill["b"]] * len(gaps) and gaps
    assert main(["train", "net.nn", "--out", "run", "--quiet"]) == 0
    Path("one.csv").write_text("b,a\n,4\n")
    capfd.readouterr()
    assert main(["predict", "run", "one.csv"]) == 0
    got = float(capfd.readouterr().out.splitlines()[1])
    model.load("run")
    assert got == pytest.approx(float(model.predict([[4, data.schema.fill["b"]]])[0]), rel=1e-6)


def test_decimal_commas() -> None:
    table = "a;b;y\n1,5;-2;3,25\n,5;1e3;4\n"
    model = net(table, ', delimiter = ";", decimal = ","', TWO)
    assert columns(model) == [[[1.5, -2], [0.5, 1000]], [3.25, 4]]
    assert columns(net('a,b,y\n"1,5",2,3\n', ', decimal = ","', TWO)) == [[[1.5, 2]], [3]]
    with pytest.raises(DataError, match=r"expected a number for `b` in line 2, found '1.234'"):
        net("a;b;y\n1;1.234;3\n", ', delimiter = ";", decimal = ","', TWO).load_dataset()


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("a,b,y\n1,,1\n", "", 'found an empty cell.*\n.*say `missing = "mean"`'),
        ("a;b;y\n1;2,5;1\n", ', delimiter = ";"', "found '2,5'.*\n.*say `decimal = \",\"`"),
        ("a,b,y\n1,red,1\n", "", "found 'red'.*\n.*say `categories = ..b..`"),
        ("a,b,y\n1,2,\n", ", missing = 0", "expected a value for `y` in line 2, found an empty cell"),
        ("a,b,y\n1,NA,2\n", ", missing = 0", "expected a number for `b` in line 2, found 'NA'"),
        ("a,b,y\n,1,2\n", ', missing = "mean"', "`a` has no number, so it has no mean"),
        ("a,b,y\n1,,2\n", ', categories = "b"', "expected a value for `b` in line 2, found an empty cell"),
        ("a,b,y\n1,2,2\n", ', missing = "mode"', "E0612.*`missing` of csv is 'mean', 'median' or a number, got 'mode'"),
        ("a,b,y\n1,2,2\n", ', decimal = ";"', 'E0612.*the decimal sign of csv must be "." or ","'),
        ("a,b,y\n1,2,2\n", ', categories = "c"', "expected a column `c` beside the target, found `a`, `b`"),
        ("a,b,y\n1,2,2\n", ', categories = "y"', "expected a column `y` beside the target"),
        ("a,b,y\n1,2,2\n", ", categories = [1]", "E0612.*`categories` of csv are names of columns"),
        ("a,b,c,y\n1,2,u,2\n", ', categories = "c"', "`c` is names, and no input is called so.*\n.*`c: i32"),
    ],
)
def test_refused_with_what_to_write(table: str, options: str, message: str) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        columns(net(table, options, TWO))


def test_names_are_no_floats() -> None:
    parts = ("x: f32[B, 2], city: f32[B]", "x = x * expand(city, 1)", "x, city")
    with pytest.raises(DataError, match=r"E0613.*`city` wants f32\[B\], but `city` of csv.* is names.*\n.*i32"):
        columns(net(CITIES, ', categories = ["city"]', parts))


def test_its_page_has_the_options() -> None:
    text = CSV.page()
    assert "- `categories`: text or a list, by default []; the columns whose texts are names" in text
    assert "- `missing`: text or a whole number or a number, by default none; what empty cells" in text
