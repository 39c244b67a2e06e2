"""The dialects that have a name, for routes and settings.

What must not live here: a dialect. A new one is a line in `DIALECTS`, its module, and its tests.
"""

from __future__ import annotations

from .centrifuge import CENTRIFUGE
from .dialect import Dialect
from .plain import PLAIN

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (PLAIN, CENTRIFUGE)}
"""By name. One object serves everybody: a dialect holds nothing."""


def dialect_of(value: str | Dialect) -> Dialect:
    """Return the dialect of that name, or `value` itself if it is one.

    Raises `ValueError` for a name that nobody has, `TypeError` for what is no dialect.
    """
    if isinstance(value, str):
        if value not in DIALECTS:
            raise ValueError(f"there is no dialect {value!r}, only {', '.join(sorted(DIALECTS))}")
        return DIALECTS[value]
    missing = [name for name in _OWED if not hasattr(value, name)]
    if missing or isinstance(value, type):
        raise TypeError(
            f"dialect must be a name, or an object with {', '.join(_OWED)}: {value!r:.80}"
        )
    return value


_OWED = ("name", "subprotocols", "is_plain", "parse", "encode", "merge")
