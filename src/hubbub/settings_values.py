"""Settings' values: how they are read from text, checked, and shown.

What must not live here: which settings there are (`settings`), and where text comes from
(`settings_environment`), the grammar of origins (`origins`).
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable
from dataclasses import Field
from typing import Any, Literal, NamedTuple, get_args, get_origin

from .errors import SettingsError
from .limits import shown_url
from .origins import SAME_ORIGIN, read_pattern
from .room_rules import RoomRules, checked_rules, read_rules, shown_rules

ENV_PREFIX = "HUBBUB_"

_SIZE_SUFFIXES = {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2}
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


class Row(NamedTuple):
    """What the documentation, the command line and `hubbub check` show of one setting."""

    name: str
    default: Any
    unit: str
    doc: str
    none: str | None
    kind: Any
    """The type annotation, without None, and without words beside a type."""
    choices: tuple[str, ...]
    """The words that it may be."""
    env: str
    flag: str
    least: float | None
    """The least value allowed."""

    @property
    def words(self) -> tuple[str, ...]:
        """All words that may be written, where only words may."""
        return ("yes", "no", *self.choices) if self.kind is bool else self.choices


def row_of(spec: Field[Any], hint: Any) -> Row:
    """Return the row of a field of `Settings` whose annotation is `hint`."""
    kind, choices, optional = _parts_of(hint)
    return Row(
        spec.name,
        spec.default,
        spec.metadata["unit"],
        spec.metadata["doc"],
        spec.metadata["none"] if optional else None,
        kind,
        choices,
        ENV_PREFIX + spec.name.upper(),
        "--" + spec.name.replace("_", "-"),
        spec.metadata["least"],
    )


def _parts_of(hint: Any) -> tuple[Any, tuple[str, ...], bool]:
    """Return the type of an annotation, the words that are right too, and whether None is."""
    is_union = get_origin(hint) in (types.UnionType, typing.Union)
    parts = [part for part in (get_args(hint) if is_union else (hint,)) if part is not type(None)]
    words = tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))
    return parts[0], words, is_union and type(None) in get_args(hint)


def visible(value: Any) -> Any:
    """Return a value without what may be secret in it: of a URL, who logs in, and its query."""
    return shown_url(value) if isinstance(value, str) and "://" in value else value


def shown(value: Any) -> str:
    """Write a value as a person would type it into the environment or on the command line, but that of a URL
    nothing is shown that may be secret."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        is_rules = bool(value) and isinstance(value[0], RoomRules)
        return shown_rules(value) if is_rules else ",".join(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(visible(value))


def parse(row: Row, text: str, *, source: str) -> Any:
    """Read a setting from text, as the environment and the command line give it."""
    text = text.strip()
    if row.none is not None and text.lower() in ("none", "null"):
        return None
    if row.choices and (row.kind is not bool or text in row.choices):
        return text
    try:
        return _PARSERS[row.kind](text)
    except SettingsError as error:
        raise SettingsError(row.name, error.value, error.expected, source=source) from None
    except (ValueError, OverflowError):
        sizes = ", such as 4096 or 4KiB" if row.unit == "bytes" else ""
        raise SettingsError(row.name, text, _expected(row) + sizes, source=source) from None


def _parse_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _parse_size(text: str) -> int:
    lowered = text.lower().replace("_", "")
    for suffix, factor in _SIZE_SUFFIXES.items():
        if lowered.endswith(suffix):
            return round(float(lowered[: -len(suffix)]) * factor)
    return int(lowered)


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    bool: _parse_bool,
    int: _parse_size,
    float: float,
    tuple[str, ...]: _parse_list,
    tuple[RoomRules, ...]: read_rules,
}


def _expected(row: Row) -> str:
    if row.choices:
        return "must be one of " + ", ".join(row.words)
    if row.kind == tuple[RoomRules, ...]:
        return 'must be a list in JSON, as in [{"pattern": "chat:*", "history": 100}]'
    what = {
        bool: "yes or no",
        str: f"a {row.unit}",
        int: "a whole number of",
        float: "a number of",
    }.get(row.kind)
    text = (
        f"must be {what} {row.unit}" if row.kind in (int, float) else f"must be {what or row.unit}"
    )
    return text if row.none is None else f"{text}, or none ({row.none})"


def checked(row: Row, value: Any, source: str) -> Any:
    """Return `value` in the field's own type, or raise."""
    if value is None and row.none is not None:
        return None
    if row.kind == tuple[str, ...]:
        return _checked_strings(row, value, source)
    if row.kind == tuple[RoomRules, ...]:
        return checked_rules(value)
    if isinstance(value, str) and value in row.choices:
        return value
    right = {bool: bool, int: int, float: (int, float)}.get(row.kind, str)
    is_right = isinstance(value, right) and (row.kind is bool or not isinstance(value, bool))  # type: ignore[arg-type]
    if not is_right or (row.choices and row.kind is not bool):
        raise SettingsError(row.name, value, _expected(row), source=source)
    if row.kind not in (int, float):
        return value
    # NaN fails too.
    if not abs(value) <= sys.maxsize or (row.least is not None and value < row.least):
        expected = f"{_expected(row)}, at least {row.least:g}"
        raise SettingsError(row.name, value, expected, source=source)
    return row.kind(value)


def _checked_strings(row: Row, value: Any, source: str) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    try:
        strings = tuple(items)
    except TypeError:
        raise SettingsError(row.name, value, "must be a list of origins", source=source) from None
    return tuple(_checked_origin(row, item, source) for item in strings)


def _checked_origin(row: Row, item: Any, source: str) -> str:
    try:
        if not isinstance(item, str):
            raise ValueError(f"is no str but {type(item).__name__}")
        return str(read_pattern(item))
    except ValueError as error:
        expected = (
            "must be origins such as https://example.com or https://*.example.com, "
            f"'{SAME_ORIGIN}', 'null' or '*'; this one {error}"
        )
        raise SettingsError(row.name, item, expected, source=source) from None
