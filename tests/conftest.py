"""What all tests share: async tests run on asyncio through anyio's plugin."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from certificates import certificate as make_certificate
from hubbub.hub import liveness
from hubbub.settings_environment import OPTIONS
from serving import DEFLATED, DEFLATED_ENVIRONMENT, DEFLATED_WAYS

# No test asserts how long work takes: a busy machine would fail it.
settings.register_profile("hubbub", deadline=None)
settings.load_profile("hubbub")

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Have the collector pass over what was imported and collected: it stays, and walking it was a quarter of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=DEFLATED_WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test on each transport, on each event loop, and once with messages deflated."""
    if request.param == DEFLATED:
        for name, text in DEFLATED_ENVIRONMENT.items():
            monkeypatch.setenv(name, text)
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run `@pytest.mark.anyio` tests on the loop of their way; without one, on the stock one."""
    has_way = "way" in request.fixturenames
    return "asyncio", {"use_uvloop": has_way and DEFLATED_WAYS[request.getfixturevalue("way")][1]}


@pytest.fixture(autouse=True)
def _pass_over_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no hub say that its event loop was blocked: the machine may have been, between two lines."""
    if "test_liveness" not in request.node.nodeid:
        monkeypatch.setattr(liveness, "STALL_S", 600.0)


@pytest.fixture(autouse=True)
def _forget_the_options_of_commands() -> Iterator[None]:
    """Let no variable of a later test be taken for an option that a command was given."""
    yield
    OPTIONS.clear()


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    """Undo what servers, frameworks and commands do to the loggers of this process."""
    root = logging.getLogger()
    kept = {
        name: logger
        for name, logger in [("", root), *logging.Logger.manager.loggerDict.items()]
        if isinstance(logger, logging.Logger)
    }
    before = {
        name: (logger.level, list(logger.handlers), logger.propagate, logger.disabled)
        for name, logger in kept.items()
    }
    yield
    for name, logger in [("", root), *list(logging.Logger.manager.loggerDict.items())]:
        if isinstance(logger, logging.Logger):
            if name not in before:
                before[name] = (logging.NOTSET, [], True, False)
            level, handlers, propagate, disabled = before[name]
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate, logger.disabled = propagate, disabled


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Make a certificate of localhost, signed by itself."""
    make_certificate(tmp_path, "localhost", "127.0.0.1")
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
