"""Estimators of scikit-learn around a network: what a `.nn` program says, behind `fit`, `predict` and `score`.

In: a program with a train block of features, a target and perhaps a `sample_weight`, and a table. What the table tells
is given to the program where it asks for it: the free sizes of the first input, the hyper `classes` (of a classifier)
or `targets` (of a regressor). Out: an estimator that can be cloned, searched, put into a pipeline and pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Self

import numpy as np

from ...dsl.errors import ArgumentTypeError
from .. import settings
from ..api import compile, source_of
from ..call.column import Array
from ..call.messages import argument_error, listed
from ..data.dataset import reshape
from ..extras import optional
from ..model import Model
from ..progress import History
from .programs import CLASSIFIER, REGRESSOR, WEIGHT, Outline, kept, restored, roles

_NEEDED = "`nnc.sklearn` needs scikit-learn"
base = optional("sklearn.base", "sklearn", _NEEDED)
BaseEstimator: Any = base.BaseEstimator
ClassifierMixin: Any = base.ClassifierMixin
RegressorMixin: Any = base.RegressorMixin
checks = optional("sklearn.utils.validation", "sklearn", _NEEDED)
multiclass = optional("sklearn.utils.multiclass", "sklearn", _NEEDED)

_HYPER = "hyper__"  # before the name of a hyper, where a search names it


class Estimator(BaseEstimator):  # type: ignore[misc]
    """What both have in common.

    model: the path of a `.nn` file or its text; None is an MLP, `CLASSIFIER` or `REGRESSOR` in `programs`, with the
    hypers width, depth, lr and decay, for features of mean 0 and variance 1. hyper: values for the program's hypers; a
    search and `set_params` name one as `hyper__width`. epochs, batch: None is what the program says. validation: the
    share of the examples that is held out; what they give stands in `history_`. random_state: the seed, or a
    RandomState; None is the program's seed, so that two fits are the same bit for bit. threads: as in `nnc.compile`.
    dtype: "f32" or "f64"; None is f64 for the MLP, as in scikit-learn's own, and f32 for other programs.

    After `fit`: `network_`, the `nnc.Model`; `history_`, of the last call; `n_features_in_`, `feature_names_in_`.
    """

    _program: str

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        *,
        hyper: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        batch: int | None = None,
        validation: float | None = None,
        random_state: Any = None,
        threads: int | None = None,
        dtype: str | None = None,
    ):
        self.model = model
        self.hyper = hyper
        self.epochs = epochs
        self.batch = batch
        self.validation = validation
        self.random_state = random_state
        self.threads = threads
        self.dtype = dtype

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments by name; `deep`: also each hyper that is given."""
        params: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.hyper, Mapping):
            params |= {_HYPER + name: value for name, value in self.hyper.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set arguments by name, a hyper as `hyper__width`; the others keep their values."""
        hyper = {n.removeprefix(_HYPER): params.pop(n) for n in list(params) if n.startswith(_HYPER)}
        super().set_params(**params)
        if hyper:
            self.hyper = {**(self.hyper or {}), **hyper}
        return self

    # --- fitting

    def _begin(self, X: Array, outline: Outline, told: Mapping[str, int]) -> None:
        """A new network for features like these; `told` are hypers that the data say where the program has them."""
        settings.hypers(self.hyper)
        hyper = {n: v for n, v in told.items() if n in outline.hypers} | dict(self.hyper or {})
        seed = self.random_state
        if seed is not None and not isinstance(seed, int | np.integer):
            seed = checks.check_random_state(seed).randint(settings.MAX_SEED)
        self.network_: Model = compile(
            outline.source,
            hyper=hyper,
            sizes=outline.sizes(X),
            seed=seed,
            threads=self.threads,
            dtype=self.dtype or ("f64" if self.model is None else "f32"),
        )

    def _learn(self, X: Array, target: Array, sample_weight: Any, epochs: int | None) -> None:
        """Some epochs on these examples, less those that count for nothing."""
        net, (features, goal, weighted) = self.network_, roles(self.network_)
        weight = _weight(sample_weight, X)
        if weight is not None and not weighted:
            raise argument_error(
                "E0604",
                f"`sample_weight` is given, but the train block of {net.name} has no input of that name",
                help=f"`train {net.name}(x, target: .., {WEIGHT}: f32[B])` with a loss that reads it",
                kind=ArgumentTypeError,
            )
        if weight is not None and not weight.all():
            X, target, weight = X[weight != 0], target[weight != 0], weight[weight != 0]
        X = self._as_wanted("predict", X)
        values = {features: X, goal: target, WEIGHT: np.ones(len(X)) if weight is None else weight}
        given = [values[name] for name in net.train_spec.inputs]
        self.history_: History = net.fit(
            *given, epochs=epochs, batch=self.batch, validation=self.validation, progress=False
        )

    def _features(self, X: Any, outline: Outline | None = None, **how: Any) -> Any:
        """The features as an array (with a `y` the two), checked: finite numbers, of a new network or like those it has
        learned from."""
        rank = outline.rank if outline is not None else len(self.network_.entry("predict").wants[0].axes)
        return checks.validate_data(
            self, X, reset=outline is not None, dtype="numeric", ensure_2d=rank == 2, allow_nd=rank != 2, **how
        )

    def _outline(self) -> Outline:
        return Outline.of(source_of(self._program if self.model is None else self.model))

    def _predicted(self, X: Any) -> Array:
        """The first result of the network."""
        checks.check_is_fitted(self, "network_")
        found = self._called("predict", X)
        result: Array = found[0] if isinstance(found, tuple) else found
        return result

    def _called(self, entry: str, X: Any) -> Any:
        """What an entry of the network makes of features."""
        return self.network_.call(entry, self._as_wanted(entry, self._features(X)))

    def _as_wanted(self, entry: str, X: Array) -> Array:
        """Images flat or not, as the first input of an entry has them."""
        found = reshape(X, self.network_.entry(entry).wants[0], "X")
        assert isinstance(found, np.ndarray)
        return found

    # --- pickling

    def __getstate__(self) -> dict[str, Any]:
        """Of a network its program, its settings and the bytes of a checkpoint."""
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = kept(state["network_"])
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        found = dict(state)
        if "network_" in state:
            found["network_"] = restored(state["network_"])
        super().__setstate__(found)


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A network that names one of several classes. Its first result are their logits, `f32[B, classes]`, or of two that
    of the second, `f32[B]`; or an export `predict_proba` gives probabilities. The target is the number of the class.

    After `fit`: `classes_`, sorted; the program's hyper `classes`, where it has one, is their number.
    """

    __module__ = "nnc.sklearn"  # where pickles look for it
    _program = CLASSIFIER
    __doc__ += (Estimator.__doc__ or "").partition("\n")[2]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from features X and classes y: texts or whole numbers."""
        outline = self._outline()
        X, y = self._examples(X, y, outline)
        self.classes_, index = np.unique(y, return_inverse=True)
        self._begin(X, outline, {"classes": len(self.classes_)})
        self._learn(X, index, sample_weight, self.epochs)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One epoch on these examples, of a new network or the one there is; the first call needs all `classes`."""
        new = not hasattr(self, "network_")
        if new and classes is None:
            raise argument_error("E0604", "the first call of partial_fit needs all `classes`", kind=ArgumentTypeError)
        outline = self._outline() if new else None
        X, y = self._examples(X, y, outline)
        known = self.classes_ if classes is None else np.unique(classes)
        if not new and not np.array_equal(known, self.classes_):
            raise argument_error(
                "E0603", f"classes must be {listed(list(self.classes_))} as before, got {listed(list(known))}"
            )
        if len(unknown := np.setdiff1d(y, known)):
            raise argument_error(
                "E0603", f"y must be of the classes {listed(list(known))}, got {listed(list(unknown))}"
            )
        if outline is not None:
            self.classes_ = known
            self._begin(X, outline, {"classes": len(known)})
        self._learn(X, np.searchsorted(known, y), sample_weight, 1)
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, [n, classes]."""
        checks.check_is_fitted(self, "network_")
        if "predict_proba" in self.network_.exports:
            return self._of_classes(self._called("predict_proba", X))
        scores = self._predicted(X)
        if scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1 and len(self.classes_) == 2):
            scores = np.stack([np.zeros_like(scores), scores], axis=1).reshape(len(scores), 2)
        if len(self.classes_) > 1 and (scores >= 0).all() and np.allclose(scores.sum(1), 1, rtol=0, atol=1e-5):
            raise argument_error(
                "E0603",
                f"the result of {self.network_.name} must be the logits of the classes, got their probabilities",
                help=f"`export predict_proba(x: ..) = {self.network_.name}(x)` says that they are",
            )
        odds = np.exp(self._of_classes(scores) - scores.max(1, keepdims=True))
        found: Array = odds / odds.sum(1, keepdims=True)
        return found

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row."""
        likeliest = self.predict_proba(X).argmax(1)
        found: Array = self.classes_[likeliest]
        return found

    def _examples(self, X: Any, y: Any, outline: Outline | None) -> tuple[Array, Array]:
        X, y = self._features(X, outline, y=y)
        multiclass.check_classification_targets(y)
        return X, y

    def _of_classes(self, scores: Array) -> Array:
        """A column for each class (E0606)."""
        if scores.ndim != 2 or scores.shape[1] != len(self.classes_):
            raise argument_error(
                "E0606",
                f"the network gives {scores.shape[1:]} numbers for each row, for {len(self.classes_)} classes",
                help="`hyper classes: int = 2` in the program is set to their number",
            )
        return scores


class Regressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A network that gives a number for each row, or several.

    Where the program has a hyper `targets`, it is how many."""

    __module__ = "nnc.sklearn"
    _program = REGRESSOR
    __doc__ += (Estimator.__doc__ or "").partition("\n")[2]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from features X and numbers y, [n] or [n, targets]."""
        return self._fit(X, y, sample_weight, self._outline(), self.epochs)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One epoch on these examples, of a new network or the one there is."""
        return self._fit(X, y, sample_weight, None if hasattr(self, "network_") else self._outline(), 1)

    def predict(self, X: Any) -> Array:
        """The numbers of each row, in the shape of the y that was learned from."""
        found = self._predicted(X)
        return found.reshape(len(found), *self._target)

    def _fit(self, X: Any, y: Any, sample_weight: Any, outline: Outline | None, epochs: int | None) -> Self:
        X, y = self._features(X, outline, y=y, multi_output=True, y_numeric=True)
        if outline is not None:
            self._target = y.shape[1:]
            self._begin(X, outline, {"targets": y.shape[1] if y.ndim == 2 else 1})
        wants = self.network_.entry("train").wants
        axes = next(w.axes for w in wants if w.name == roles(self.network_)[1])
        if len(axes) != y.ndim and y[0].size == 1:
            y = y.reshape(len(y), *[1] * (len(axes) - 1))
        self._learn(X, y, sample_weight, epochs)
        return self


def _weight(given: Any, X: Array) -> Array | None:
    """How much each example counts, f64: 0 or more, and not all 0 (E0603); None where nothing is said."""
    if given is None:
        return None
    weight: Array = checks._check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise argument_error("E0603", "sample_weight must have at least one weight that is not zero")
    return weight
