"""API: the HTTP API of a hub as an ASGI application, in the form of Centrifugo's server API.

What must not live here: what the methods do (`api_methods`), who may call (`api_keys`), what the document says
(`api_document`). `Hub.api` makes it.

In this order: who calls, by the head alone; which method that is, and whether the key may call it; whether it calls too
often; how long the body says it is; then the body is read, and no more of it than may be. So a stranger costs no
more than a head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw, Struct, UnsetType

from ..dialects.centrifuge_events import code_of
from ..errors import CommandError, Refused, SettingsError
from ..hub.core import core_of
from ..limits import printable
from ..logs import level_of
from .api_document import document
from .api_keys import SETTING, ApiKey, Caller, KeyRing, read_keys
from .api_methods import METHODS, Methods
from .endpoint import Endpoint, checked_path, path_of
from .handshake import address_of, read_handshake
from .responses import only_get, refuse_socket, respond

if TYPE_CHECKING:
    from ..hub.hub import Hub
    from ..model import Handshake
    from ..transports.asgi import ASGIApp, Receive, Scope, Send

BODY_TIMEOUT_S = 30.0
"""How long a body may take to come."""
DOCUMENT = "openapi.json"
"""Where the document is, beside the methods."""

_STATUS_OF_CODE = {101: 401, 103: 403, 104: 404, 102: 404, 111: 429, 112: 416, 113: 409, 100: 500}
"""What an error's code is as an HTTP status, for who asks for that; 400 for all others."""
_CODE_OF_STATUS = {401: 101, 403: 103, 404: 104, 429: 111}
"""The reverse, for what is refused before any method is called: 107 for others below 500, and 100."""


class _Envelope(Struct):
    """A method and its request, as they come to the API's own path."""

    method: str
    params: Raw | UnsetType = msgspec.UNSET


class _Place(NamedTuple):
    """Where the API is, as callers see it, and what follows that in a request's path, without slashes at its ends."""

    url: str
    rest: str


class HttpApi:
    """An ASGI application that has the API at `path`, and gives all else to `app` (None: answers it with 404)."""

    def __init__(
        self,
        hub: Hub,
        path: str,
        keys: Iterable[str | ApiKey] | None,
        app: ASGIApp | None,
        max_body_bytes: int,
    ) -> None:
        if app is not None and not callable(app):
            raise TypeError(f"app is an ASGI application or None, not {app!r:.80}")
        if type(max_body_bytes) is not int or max_body_bytes < 1:
            raise ValueError(f"max_body_bytes is a number of bytes, not {max_body_bytes!r:.80}")
        self._endpoint = Endpoint(hub)
        self._core = core_of(hub)
        self._path = checked_path(path).rstrip("/")
        self._app = app
        self._max_body_bytes = max_body_bytes
        if keys is None:
            keys = self._keys_of_the_setting()
        self._keys = KeyRing(keys, self._core.now)
        for key in self._keys.keys:
            for name in sorted(key.methods or ()):
                if name not in METHODS:
                    known = ", ".join(METHODS)
                    raise ValueError(f"{key!r} names the method {name!r}; there are {known}")
        self._methods = Methods(self._core)

    def _keys_of_the_setting(self) -> list[ApiKey]:
        path = self._core.settings.api_keys_file
        if path is None:
            expected = "hub.api needs keys=[…], or this setting: a file with a key in each line"
            raise SettingsError(SETTING, None, expected)
        return read_keys(path, self._core.settings.source(SETTING))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        kind = scope["type"]
        place = self._find(scope) if kind == "http" else None
        if place is not None:
            await self._serve(place, scope, receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif kind == "http":
            await _refuse(scope, send, Refused(404), is_bare=False)
        elif kind == "websocket":
            await refuse_socket(receive, send)
        else:
            await self._endpoint(scope, receive, send)

    def _find(self, scope: Scope) -> _Place | None:
        """Return where the API is, and what of it a request wants; None for what is not the API's."""
        path, root = path_of(scope), scope.get("root_path", "").rstrip("/")
        if f"{path}/".startswith(f"{self._path}/"):
            return _Place(root + self._path, path[len(self._path) :].strip("/"))
        # A framework that mounts an application at a path has that in the root. It mounts none that has another
        # application in it: there it is a root that ends so by chance, of a server or a proxy.
        if self._app is None and root.endswith(self._path):
            return _Place(root, path.strip("/"))
        return None

    async def _serve(self, place: _Place, scope: Scope, receive: Receive, send: Send) -> None:
        is_bare, caller = False, None
        try:
            request = read_handshake(scope)
            is_bare = request.headers.get("x-centrifugo-error-mode", "").lower() == "transport"
            caller = self._caller(request)
            if place.rest == DOCUMENT:
                await self._send_document(place.url, scope, send)
                return
            answer = await self._answer(place.rest, caller, scope, request, receive)
        except Refused as refusal:
            self._note_refusal(refusal, scope, caller)
            await _refuse(scope, send, refusal, is_bare=is_bare)
            return
        except CommandError as error:
            answer = {"error": {"code": code_of(error), "message": error.message}}
        except _Gone:
            return
        await _send(scope, send, answer, is_bare=is_bare)

    def _caller(self, request: Handshake) -> Caller:
        """Return who calls, by the key in the head. Raises `Refused(401)`."""
        secret = _secret_in(request)
        caller = None if secret is None else self._keys.find(secret)
        if caller is None:
            what = "There is no API key" if secret is None else "This API key is not known"
            headers = {"WWW-Authenticate": "apikey"}
            raise Refused(401, message=f"{what}; it comes in the header X-API-Key", headers=headers)
        return caller

    async def _send_document(self, url: str, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise only_get()
        await _respond(scope, send, 200, msgspec.json.encode(document(url or "/")))

    async def _answer(
        self, rest: str, caller: Caller, scope: Scope, request: Handshake, receive: Receive
    ) -> dict[str, Any]:
        """Return what a method answers. Raises `Refused` for what is not carried out, and `CommandError`."""
        if rest and rest not in METHODS:
            raise Refused(404, message="There is no such method")
        if scope["method"] != "POST":
            raise Refused(405, message="Only POST", headers={"Allow": "POST"})
        if rest:
            self._check(rest, caller)
        if not caller.charge():
            raise Refused(429, headers={"Retry-After": "1"})
        body: bytes | Raw = await self._read_body(request, receive)
        await self._endpoint.check_open()
        name = rest
        if not name:
            name, body = _read_envelope(body)
            self._check(name, caller)
        done = await self._methods.answer(name, body, caller)
        if name == "batch" and "result" in done:
            return {"replies": done["result"].replies}
        return done

    def _check(self, name: str, caller: Caller) -> None:
        try:
            self._methods.check(name, caller)
        except CommandError:
            stats = self._core.stats
            stats.api_calls += 1
            stats.api_errors += 1
            raise

    async def _read_body(self, request: Handshake, receive: Receive) -> bytes:
        """Return the body, which is JSON. Raises `Refused`, before more is read than may be."""
        most = self._max_body_bytes
        length = request.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise _too_large(most)
        body = bytearray()
        timeout = asyncio.timeout(BODY_TIMEOUT_S)
        try:
            async with timeout:
                more = True
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise _Gone
                    body += event.get("body", b"")
                    more = event.get("more_body", False)
                    if len(body) > most:
                        raise _too_large(most)
        except TimeoutError:
            raise Refused(408, message="The body took too long to come") from None
        return _checked_json(bytes(body))

    def _note_refusal(self, refusal: Refused, scope: Scope, caller: Caller | None) -> None:
        core = self._core
        core.stats.refuse_api(refusal.code)
        who = printable(address_of(scope) or "an unknown address")
        if caller is not None:
            who = f"{printable(caller.key.name, 50)} at {who}"
        level, _ = level_of(refusal.code)
        text = "a call of the API from %s was refused: %d %s"
        core.log.log(level, "api refused", text, who, refusal.status, refusal.code)


class _Gone(Exception):
    """Who called has gone before its request was whole."""


def _secret_in(request: Handshake) -> str | None:
    """Return the key in a request's head: `X-API-Key`, `Authorization: apikey …`, or `?api_key=…`."""
    secret = request.headers.get("x-api-key")
    if secret:
        return secret
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "apikey" and value.strip():
        return value.strip()
    return request.query.get("api_key") or None


def _checked_json(body: bytes) -> bytes:
    """Return a body that is JSON; raise `Refused(400)` for one that is not."""
    try:
        body.decode()
        msgspec.json.decode(body, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, message=f"The body is no JSON: {printable(str(error))}") from None
    except RecursionError:
        raise Refused(400, message="The body is nested too deeply") from None
    return body


def _read_envelope(body: bytes) -> tuple[str, bytes | Raw]:
    """Return the method that a body names, and the request in it."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        raise CommandError("bad_request", f"bad request: {printable(str(error))}") from None
    params = envelope.params
    return envelope.method, b"{}" if isinstance(params, UnsetType) else params


def _too_large(most: int) -> Refused:
    return Refused(413, message=f"A body has at most {most} bytes (max_body_bytes)")


async def _send(scope: Scope, send: Send, answer: Mapping[str, Any], *, is_bare: bool) -> None:
    """Send what a method has answered; with `is_bare` an error is an HTTP status too."""
    error = msgspec.to_builtins(answer.get("error"))
    if error is None or not is_bare:
        await _respond(scope, send, 200, msgspec.json.encode(answer))
        return
    status = _STATUS_OF_CODE.get(error["code"], 400)
    await _respond(scope, send, status, msgspec.json.encode(error))


async def _refuse(scope: Scope, send: Send, refusal: Refused, *, is_bare: bool) -> None:
    """Send why nothing was carried out: an error like a method's, beside an HTTP status."""
    code = _CODE_OF_STATUS.get(refusal.status, 107 if refusal.status < 500 else 100)
    error = {"code": code, "message": refusal.message}
    body = msgspec.json.encode(error if is_bare else {"error": error})
    await _respond(scope, send, refusal.status, body, refusal.headers)


async def _respond(
    scope: MutableMapping[str, Any],
    send: Send,
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send an answer that no cache keeps, and that pages of other origins may not read."""
    await respond(send, scope, status, body, {"Cache-Control": "no-store", **(headers or {})})
