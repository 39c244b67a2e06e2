"""The old place of frames works, and says where the new one is."""

from __future__ import annotations

import importlib
import sys

import pytest

from hubbub.wire.frame import encode


def test_the_old_place_works_with_a_warning() -> None:
    sys.modules.pop("hubbub.frame", None)
    with pytest.warns(DeprecationWarning, match=r"from hubbub\.wire\.frame import encode"):
        module = importlib.import_module("hubbub.frame")
    assert module.encode is encode
