"""Where PyTorch is not installed, that is said."""

from __future__ import annotations

import sys

import pytest

import nnc


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(nnc.UnsupportedError, match=r"nnc\[torch\]") as e:
        nnc.from_torch(object(), None)
    assert e.value.code == "E0503"
