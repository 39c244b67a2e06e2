"""The old place of `hubbub.wire.frame`, until the next minor version.

What must not live here: code.
"""

from __future__ import annotations

import warnings

from .wire.frame import Frame, encode

__all__ = ["Frame", "encode"]

warnings.warn(
    "hubbub.frame has moved: write  from hubbub.wire.frame import encode",
    DeprecationWarning,
    stacklevel=2,
)
