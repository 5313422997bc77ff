"""Rewrite rules, each with its mathematics above it."""
