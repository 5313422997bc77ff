"""Estimators: scikit-learn's own checks, and what its users do with them."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import nnc

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from nnc.dsl.format import format
from nnc.dsl.parser import parse
from nnc.dsl.source import Source
from nnc.runtime.sklearn.programs import CLASSIFIER, REGRESSOR
from nnc.sklearn import Classifier, Regressor

MODELS = Path(nnc.__file__).parent / "models"
X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
SMALL = {"width": 16}
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]

LOGISTIC = """
model Line(x: f32[B, D]) -> (logit: f32[B]) { logit = squeeze(x |> Dense(1), 1) }
train Line(x, y: f32[B]) {
    loss = mean(binary_cross_entropy(logit, y))
    optimizer = Adam(lr = 0.05)
    epochs = 40
}
"""


@pytest.mark.parametrize("estimator", [Classifier(hyper=SMALL), Regressor(hyper=SMALL)], ids=lambda e: type(e).__name__)
def test_the_checks_of_scikit_learn(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_skip=None, on_fail=None)
    assert [(r["check_name"], r["exception"]) for r in found if r["status"] in ("failed", "xfail")] == []
    assert len(found) > 50


@pytest.mark.parametrize("text", [CLASSIFIER, REGRESSOR])
def test_the_programs_are_written_as_fmt_writes_them(text):
    source = Source("<text>", text)
    assert format(parse(source), source) == text


def test_texts_are_classes():
    found = Classifier().fit(X, NAMES)
    assert found.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert found.score(X, NAMES) > 0.95
    p = found.predict_proba(X)
    assert p.shape == (150, 3) and np.array_equal(found.classes_[p.argmax(1)], found.predict(X))
    np.testing.assert_allclose(p.sum(1), 1)
    assert len(found.history_) == 200 and found.network_.manifest.model == "Mlp"


def test_a_search_sets_hypers_and_arguments():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Classifier(epochs=10)),
        {"classifier__hyper__width": [2, 32], "classifier__hyper__lr": [0.01], "classifier__batch": [16]},
        cv=2,
    ).fit(X, NAMES)
    best = search.best_estimator_[-1]
    assert best.hyper == {"width": 32, "lr": 0.01} and best.batch == 16 and best.epochs == 10
    assert best.network_.params["Mlp.dense_1.W"].shape == (32, 4)
    assert search.best_score_ > 0.8


def test_clones_share_nothing_but_arguments():
    one = Classifier(hyper={"width": 8}, random_state=3)
    other = clone(one).set_params(hyper__depth=2, epochs=1)
    assert one.hyper == {"width": 8} and other.hyper == {"width": 8, "depth": 2}
    assert other.get_params()["hyper__depth"] == 2 and "hyper__depth" not in other.get_params(deep=False)
    with pytest.raises(ValueError, match="widht"):
        one.set_params(widht=3)
    with pytest.raises(nnc.SourceError, match="widht"):
        one.set_params(hyper__widht=3).fit(X, Y)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hyper": 3}, "hyper must be a mapping by name, got int"),
        ({"model": 3}, "the program must be a path or a text, got int"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"dtype": "f16"}, 'dtype must be "f32" or "f64"'),
        ({"random_state": -1}, "seed must be between 0"),
        ({"validation": 2.0}, "a share between 0 and 1"),
        ({"model": "fn f(x: f32[B]) -> f32[B] = x"}, "has no train block"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_by_fit(wrong, said):
    with pytest.raises(nnc.NncError, match=said):
        Classifier(**wrong).fit(X, Y)


def test_the_seed_decides():
    states = (1, 2, np.random.RandomState(1), np.random.RandomState(1))
    one, two, drawn, again = (Classifier(epochs=1, random_state=s).fit(X, Y).predict_proba(X) for s in states)
    assert not np.array_equal(one, two) and not np.array_equal(one, drawn)
    np.testing.assert_array_equal(drawn, again)
    plain = [Classifier(epochs=2).fit(X, Y).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*plain)


def test_partial_fit_goes_on():
    net = Classifier()
    with pytest.raises(nnc.ArgumentError, match="all `classes`"):
        net.partial_fit(X, NAMES)
    for k in range(100):
        net.partial_fit(X[k % 2 :: 2], NAMES[k % 2 :: 2], classes=np.unique(NAMES))
    assert net.score(X, NAMES) > 0.9 and net.network_.epochs_done == 100
    with pytest.raises(nnc.ArgumentError, match="got `rose`"):
        net.partial_fit(X[:1], ["rose"])
    with pytest.raises(nnc.ArgumentError, match="as before, got `a`, `b`"):
        net.partial_fit(X[:1], ["a"], classes=["a", "b"])


def test_weights_count_examples():
    odd = np.where(Y == 2, 0.0, 1.0)  # of nothing there is nothing to learn
    found = Classifier().fit(X, NAMES, sample_weight=odd)
    assert "virginica" in found.classes_ and "virginica" not in found.predict(X)
    twice = Classifier(batch=1000, epochs=20).fit(np.repeat(X, 1 + Y, axis=0), np.repeat(Y, 1 + Y))
    weighted = Classifier(batch=1000, epochs=20).fit(X, Y, sample_weight=1 + Y)
    np.testing.assert_allclose(twice.predict_proba(X), weighted.predict_proba(X), rtol=1e-9)
    with pytest.raises(nnc.ArgumentError, match="`sample_weight` is given, but the train block of Line"):
        Classifier(LOGISTIC).fit(X, Y == 0, sample_weight=odd)


def test_columns_have_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    found = Classifier(epochs=2).fit(frame, pandas.Series(NAMES))
    assert found.feature_names_in_.tolist() == list("abcd") and found.n_features_in_ == 4
    np.testing.assert_array_equal(found.predict(frame), Classifier(epochs=2).fit(X, NAMES).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        found.predict(frame[list("dcba")])


@pytest.mark.parametrize("estimator", [Classifier(epochs=3), Classifier(epochs=3, validation=0.2)])
def test_a_pickle_holds_what_was_learned(estimator, tmp_path):
    file = tmp_path / "net.nn"
    file.write_text(CLASSIFIER)
    there = clone(estimator).set_params(model=str(file), dtype="f64").fit(X, NAMES)
    file.unlink()
    again = pickle.loads(pickle.dumps(there))
    np.testing.assert_array_equal(again.predict_proba(X), there.predict_proba(X))
    np.testing.assert_array_equal(
        again.partial_fit(X, NAMES).predict_proba(X), there.partial_fit(X, NAMES).predict_proba(X)
    )
    with pytest.raises(NotFittedError):
        pickle.loads(pickle.dumps(clone(there))).predict(X)


def test_a_pickle_of_another_program_is_refused(tmp_path):
    (tmp_path / "part.nn").write_text("fn act(x) = relu(x)\n")
    (tmp_path / "net.nn").write_text('import "part.nn"\n' + CLASSIFIER.replace("|> relu", "|> act"))
    data = pickle.dumps(Classifier(tmp_path / "net.nn", epochs=1).fit(X, Y))
    (tmp_path / "part.nn").write_text("fn act(x) = tanh(x)\n")
    with pytest.raises(nnc.DataError, match=r"E0624.*part\.nn.*: not as it was when"):
        pickle.loads(data)


def test_a_search_in_other_processes():
    grid = {"hyper__width": [4, 8]}
    one, two = (GridSearchCV(Classifier(epochs=3, threads=1), grid, cv=2, n_jobs=n).fit(X, Y) for n in (1, 2))
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])


def test_a_program_of_the_user():
    pixels, digit = load_digits(return_X_y=True)
    found = Classifier(MODELS / "digits_mlp.nn", epochs=10).fit(pixels / 16, digit)
    assert found.score(pixels / 16, digit) > 0.95
    with pytest.raises(nnc.ArgumentError, match=r"\(10,\) numbers for each row, for 3 classes"):
        Classifier(MODELS / "digits_mlp.nn", epochs=1).fit(pixels[:, :64], digit % 3).predict(pixels)
    two = Classifier(LOGISTIC).fit(X[:100], NAMES[:100])
    assert two.score(X[:100], NAMES[:100]) == 1
    with pytest.raises(nnc.ArgumentError, match="takes `x`, `a`, `b`"):
        Classifier(LOGISTIC.replace("y: f32[B]", "a: f32[B], b: f32[B]").replace("logit, y", "logit, a * b")).fit(X, Y)


def test_probabilities_of_the_program():
    sure = CLASSIFIER + "export predict_proba(x: f32[B, features]) -> f32[B, classes] = softmax(1000 * Mlp(x))\n"
    plain, found = Classifier(CLASSIFIER).fit(X, Y), Classifier(sure).fit(X, Y)
    np.testing.assert_array_equal(found.predict(X), plain.predict(X))
    assert np.median(found.predict_proba(X).max(1)) == 1
    twice = Classifier(CLASSIFIER.replace("|> Dense(classes)", "|> Dense(classes) |> softmax"), epochs=1).fit(X, Y)
    with pytest.raises(nnc.ArgumentError, match="must be the logits of the classes, got their probabilities"):
        twice.predict(X)


def test_images_are_flat_or_not():
    pixels, digit = load_digits(return_X_y=True)
    net = """
    model Net(x: f32[B, 1, 8, 8]) -> (logits: f32[B, 10]) {
        logits = x |> Conv(4, 3) |> relu |> flatten |> Dense(10)
    }
    train Net(x, label: i32[B]) {
        loss = mean(cross_entropy(logits, label))
        optimizer = Adam(lr = 3e-3)
        batch = 32
        epochs = 4
    }
    """
    flat = Classifier(net).fit(pixels / 16, digit)
    assert flat.score(pixels / 16, digit) > 0.9
    images = (pixels / 16).reshape(-1, 1, 8, 8)
    np.testing.assert_array_equal(Classifier(net).fit(images, digit).predict(images), flat.predict(pixels / 16))


def test_several_numbers():
    x, y = make_regression(200, 5, n_targets=2, random_state=0)
    y = y / y.std(0)
    found = Regressor(hyper={"lr": 3e-3}).fit(x, y)
    assert found.score(x, y) > 0.98 and found.predict(x).shape == (200, 2)
    assert Regressor(epochs=1).fit(x, y[:, 0]).predict(x).shape == (200,)
    assert Regressor(epochs=1).fit(x, y[:, :1]).predict(x).shape == (200, 1)
    assert cross_val_score(Regressor(), x, y[:, 0], cv=2).min() > 0.9


def test_without_scikit_learn_it_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None\nimport nnc.sklearn"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'nnc[sklearn]'" in out.stderr
