"""Estimators of scikit-learn around a network."""
