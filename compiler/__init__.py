"""Syntax tree to native code."""
