"""Settings' environment: which variables are settings, and what they say.

What must not live here: which settings there are (`settings`), what a value may be
(`settings_values`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from .errors import SettingsError
from .settings_values import ENV_PREFIX, Row, parse

OPTIONS: dict[str, tuple[str, str]] = {}
"""Which variables a command of ours has set for an option: the option's name, and what was given."""

_PLACED_BY_OTHERS = re.compile(
    r"HUBBUB_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?|ENV_.+)=.*"
    r"|HUBBUB_(?:[A-Z0-9_]+_)?PORT=(?:tcp|udp|sctp)://.*"
    r"|HUBBUB_(?:[A-Z0-9_]+_)?NAME=/.*",
    re.DOTALL,
)
"""What Kubernetes puts into every container for a service whose name begins with "hubbub", and what
links between Docker containers do: `HUBBUB_SERVICE_HOST`, `HUBBUB_PORT=tcp://10.0.0.1:80`."""


def read_environment(
    environ: Mapping[str, str], known: Mapping[str, Row]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of those settings that variables give, and which variable gave each.

    Raises `SettingsError` for a variable that looks like a setting and is none.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for variable in sorted(environ):
        if not _is_ours(variable, environ[variable]):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in known:
            raise _unknown_variable(variable, nearest(name, known))
        source = _source_of(variable, environ[variable])
        values[name] = parse(known[name], environ[variable], source=source)
        sources[name] = source
    return values, sources


def _source_of(variable: str, text: str) -> str:
    """Say where a variable's value came from, as a person has written it."""
    option, given = OPTIONS.get(variable, ("", ""))
    return option if option and given == text else f"environment, {variable}"


def _is_ours(variable: str, text: str) -> bool:
    """Tell whether a variable says something about a setting. An empty one is as good as none."""
    if not variable.startswith(ENV_PREFIX):
        return False
    if not isinstance(text, str):
        raise SettingsError(variable, text, "must be text, as in an environment")
    if not text.strip():
        return False
    return not _PLACED_BY_OTHERS.fullmatch(f"{variable}={text}")


def unknown(name: str, source: str, expected: str, hint: str | None) -> SettingsError:
    """Return the error for a name that is no setting, without its value, which may be a secret."""
    return SettingsError(name, None, expected, source=source, nearest=hint, shows_value=False)


def _unknown_variable(variable: str, near: str | None) -> SettingsError:
    expected = "no such setting"
    if near is None:
        expected += f"; a variable of your own must not begin with {ENV_PREFIX}"
    hint = None if near is None else ENV_PREFIX + near.upper()
    return unknown(variable, "environment", expected, hint)


def nearest(name: str, known: Mapping[str, object]) -> str | None:
    """Return the right name that is closest to `name`, None when none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None
