"""One attempt to open a socket: the program's functions asked, the request made, redirects followed.

It raises what went wrong, whatever that is. What must not live here: what that means (`failures`),
and whether another attempt follows (`connection`, by the rules of `retry`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from ..errors import Disconnected, HubbubError
from .client_socket import ClientSocket
from .failures import FunctionFailed, FunctionWrong
from .options import Options, check_address, check_headers
from .redirects import BadRedirect, Target, redirected

T = TypeVar("T")

MAX_REDIRECTS = 10
"""How many redirects one attempt follows."""


class _open_websocket(open_websocket):  # noqa: N801 (a class that is called like a function)
    """One request: what a redirect leads to is for `redirected` to say."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def open_socket(options: Options) -> ClientSocket:
    """Make one attempt, and follow redirects. Raises whatever it fails with."""
    url = await resolve("url", options.url, check_address)
    headers = await resolve("headers", options.headers, check_headers)
    target = Target(url, headers)
    for _ in range(1 + MAX_REDIRECTS):
        try:
            return await _request(target, options)
        except InvalidStatus as error:
            refusal = error
            next_target = redirected(target, error.response)
            if next_target is None:
                raise
            target = next_target
    raise BadRedirect(refusal.response, f"more than {MAX_REDIRECTS} redirects")


async def _request(target: Target, options: Options) -> ClientSocket:
    # An address without TLS takes no context, and one with TLS makes its own of True.
    is_tls = target.url.startswith("wss:")
    tls: dict[str, Any] = {"ssl": options.ssl or True} if is_tls else {}
    socket = await _open_websocket(
        target.url,
        additional_headers=target.headers,
        subprotocols=cast("Sequence[Subprotocol]", options.subprotocols) or None,
        origin=cast("Origin | None", options.origin),
        max_size=options.max_message_bytes,
        open_timeout=None,
        close_timeout=options.close_timeout_s,
        ping_interval=options.ping_interval_s,
        ping_timeout=options.ping_timeout_s,
        proxy=options.proxy,
        create_connection=ClientSocket,
        **tls,
    )
    return cast("ClientSocket", socket)


async def resolve(
    name: str,
    source: T | Callable[[], T | Awaitable[T]],
    check: Callable[[object], T],
    *,
    says: tuple[type[HubbubError], ...] = (Disconnected,),
) -> T:
    """Return what `source` is, or returns, when it is a function of the program's.

    Raises what the function `says` if it raises that, `FunctionFailed` for anything else, and
    `FunctionWrong` if `check` does not take what it returned.
    """
    if not callable(source):
        return source
    try:
        value = source()
        value = await value if inspect.isawaitable(value) else value
    except says:
        raise
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
            raise  # it is this attempt that is cancelled
        text = f"the {name} function failed: {type(error).__name__}: {error}"
        raise FunctionFailed(text) from error
    try:
        return check(value)
    except (TypeError, ValueError) as error:
        raise FunctionWrong(f"the {name} function returned nonsense: {error}") from error
