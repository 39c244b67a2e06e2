"""JSON Web Tokens of connections, shown by the real SDKs and by rooms.js: expired, refreshed, forged, with rooms."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple, Protocol

import pytest
from centrifuge import ClientState  # type: ignore[import-untyped]

from centrifuge_app import do, make_app, make_hub
from end_to_end.playing import CENTRIFUGE, ROOMS, Player, of
from end_to_end.python_sdk import sdk
from hubbub import Hub, TokenVerifier
from hubbub.hub.core import core_of
from hubbub.hub.session import ClientSession
from hubbub.tokens.claims import ConnectionToken
from issuing import SECRET, issuing, jwk, private_key, sign
from serving import Served, serve, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


class Sign(Protocol):
    def __call__(self, claims: dict[str, Any]) -> str: ...


class NotingVerifier(TokenVerifier):
    """Counts the tokens that were good."""

    good: int = 0

    async def connection(self, token: str) -> ConnectionToken:
        found = await super().connection(token)
        self.good += 1
        return found


class Issued(NamedTuple):
    """A server, what verifies the tokens there, and what signs them."""

    hub: Hub
    server: Served
    verifier: NotingVerifier
    sign: Sign


@pytest.fixture(params=["a secret, native", "a key set, portable"])
def signing(request: pytest.FixtureRequest) -> Iterator[tuple[NotingVerifier, Sign]]:
    if "secret" in request.param:
        yield NotingVerifier(hmac_secret=SECRET), sign
        return
    key = private_key("ES256")
    with issuing() as issuer:
        issuer.publish(jwk(key, "k1"))
        signed = functools.partial(sign, algorithm="ES256", key=key, kid="k1")
        yield NotingVerifier(jwks_url=issuer.url), signed


@pytest.fixture
async def issued(
    request: pytest.FixtureRequest, signing: tuple[NotingVerifier, Sign]
) -> AsyncIterator[Issued]:
    verifier, signed = signing
    hub = make_hub(verifier)
    native = "native" in request.node.callspec.params["signing"]
    async with serve(make_app(hub, signed), native=native) as server:
        yield Issued(hub, server, verifier, signed)


async def test_npm(issued: Issued, player: Player) -> None:
    events = await player(CENTRIFUGE, issued.server, "jwt")
    assert of(events, "given", "given publication", "asked") == [
        ["given", "chat:mine", 0],
        ["given publication", 1, 1],
        ["asked", 3, "connected"],
    ]
    assert [event[:2] for event in of(events, "disconnected")] == [["disconnected", 101]]
    assert len(of(events, "connected")) == 1, "a new token is no new connection"
    assert issued.verifier.good == 2


async def test_rooms_js(issued: Issued, player: Player) -> None:
    events = await player(ROOMS, issued.server, "jwt")
    assert of(events, "open", "room", "publication", "asked") == [
        ["open"],
        ["room", "chat:mine"],
        ["publication", 1, 1],
        ["asked", 3, "open"],
    ]
    assert [event[:2] for event in of(events, "close")] == [["close", 109], ["close", 101]]
    assert [event[:2] for event in of(events, "stop")] == [["stop", 101]]
    assert issued.verifier.good == 2


async def test_python(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, server, verifier, signed = issued
    lives = [-10, 2, 3600]
    ends: list[Any] = []
    registry = core_of(hub).registry
    refresh = registry.refresh

    def refresh_and_note(session: ClientSession, expires_at: float | None) -> None:
        refresh(session, expires_at)
        ends.append(expires_at)

    monkeypatch.setattr(registry, "refresh", refresh_and_note)

    def token(lives_s: int) -> str:
        claims = {"sub": "ann", "channels": ["chat:mine"], "exp": int(time.time()) + lives_s}
        return signed(claims)

    async def get_token() -> str:
        return token(lives.pop(0))

    async with sdk(server, "", get_token=get_token) as (client, noting):
        await until(lambda: len(ends) == 2)
        assert ends[1] - ends[0] > 3000, "it may stay as long as the new one says"
        await do(hub, ["publish", "chat:mine", "1"])
        await until(lambda: len(noting.got) == 1)
        assert (lives, client.state) == ([], ClientState.CONNECTED)
        assert noting.had == [("chat:mine", False, False)]
        assert noting.got == [("chat:mine", 1, 1)]
        assert noting.codes == [("connecting", 0)], "a new token is no new connection"
        assert [client.user for client in hub] == ["ann"]
        assert verifier.good == 2
    forged = f"{token(60).rpartition('.')[0]}.{'A' * 86}"
    async with sdk(server, forged) as (client, noting):
        await until(lambda: noting.codes == [("connecting", 0), ("disconnected", 101)])
