"""The sockets that a server takes connections from: made, or inherited, before anything else is done.

What must not live here: what is served on them (`serve`).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .serve import Serving

BACKLOG = 2048
"""How many connections may wait until a server takes them: while it starts, while a worker is replaced."""
TRIES = 20
"""How many free ports are tried for one that all addresses have free."""


def address_of(serving: Serving, sockets: Iterable[socket.socket] | None) -> str:
    """Return where a server is, for people: the URL of its first socket, or the path of a Unix socket."""
    if sockets is None:
        return f"unix:{serving.uds}"
    name = next(iter(sockets)).getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    is_here = host in ("127.0.0.1", "::1", "0.0.0.0", "::")
    shown_host = "localhost" if is_here else f"[{host}]" if ":" in host else host
    scheme = "https" if serving.ssl_certfile else "http"
    return f"{scheme}://{shown_host}:{port}"


def open_sockets(serving: Serving) -> list[socket.socket] | None:
    """Return the sockets that a server takes connections from; None: uvicorn makes its Unix socket."""
    if serving.fd is not None:
        return [inherited(serving.fd)]
    return None if serving.uds else listen(serving.host, serving.port)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of `host`, before anything else is done; say what is in the way.

    uvicorn's `bind_socket` takes one address, and asyncio's servers give each its own free port; both
    tell a port in use after the application has started, as a line of the log. A socket that is bound
    and does not listen holds no port: another server may bind it too.
    """
    try:
        infos = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise click.ClickException(
            f"--host {host}: there is no such address ({error.strerror})"
        ) from error
    addresses = list(dict.fromkeys((info[0], info[4]) for info in infos))
    tries = TRIES
    while True:
        sockets, problem, tried = _bind_all(addresses, port)
        if problem is None:
            return sockets
        tries -= 1
        # A free port of one address may be another server's on the next: there are others.
        if port or not tries or problem.errno != errno.EADDRINUSE:
            raise click.ClickException(_why_not_listening(host, tried, problem)) from problem


def _bind_all(
    addresses: Sequence[tuple[int, Any]], port: int
) -> tuple[list[socket.socket], OSError | None, int]:
    """Listen on one port of all addresses that this machine has; return the sockets, what is in the way, and the port.

    There are no sockets where anything is.
    """
    sockets: list[socket.socket] = []
    problems: list[OSError] = []
    for family, address in addresses:
        try:
            place = (address[0], port, *address[2:])
            sockets.append(socket.create_server(place, family=family, backlog=BACKLOG))
        except OSError as error:
            problems.append(error)
        else:
            port = sockets[0].getsockname()[1]  # for the other addresses, if any would do
    decisive = [error for error in problems if error.errno == errno.EADDRINUSE]
    if not decisive and sockets:
        return sockets, None, port
    for sock in sockets:
        sock.close()
    return [], (decisive or problems)[0], port


def inherited(descriptor: int) -> socket.socket:
    """Return the socket that a descriptor is; raise for one that takes no connections."""
    try:
        found = socket.socket(fileno=descriptor)
        is_listening = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise click.ClickException(f"--fd {descriptor}: no socket ({error.strerror})") from error
    if not is_listening:
        found.detach()
        raise click.ClickException(f"--fd {descriptor}: a socket that takes no connections")
    return found


def _why_not_listening(host: str, port: int, error: OSError) -> str:
    where = f"port {port} of {host or 'this machine'}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"{where} needs privileges: choose one from 1024 on with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: this machine has no such address"
    return f"cannot listen on {where}: {error.strerror}"
