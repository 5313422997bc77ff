"""Estimators of scikit-learn around a network: `from nnc.sklearn import Classifier, Regressor`."""

from nnc.runtime.sklearn.estimators import Classifier, Regressor

__all__ = ["Classifier", "Regressor"]
