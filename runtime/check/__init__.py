"""Checking a model: its gradients, its in-file tests, its twin in float64."""
