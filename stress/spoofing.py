"""Scenarios: false origins, hosts, addresses and tokens, and bytes that are meant to forge log lines.

What must not live here: how a scenario is run and checked (`scenario.py`). `run.py` and the tests run
them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from .raw_client import (
    BINARY,
    CLOSE,
    TEXT,
    Denied,
    RawClient,
    abort_all,
    connect,
    frame,
    open_connection,
)
from .scenario import Harness, Outcome, Scale, scenario

TOKEN = "s3cr3t-t0ken"
PAYLOAD = "p4yl0ad-of-a-client"
MARK = "INJECTED"
"""What begins a log line that no client should have been able to write."""


async def _answer(port: int, path: str = "/ws", headers: str = "") -> int:
    """Shake hands; return the status of the answer."""
    try:
        client = await connect(port, path, headers=headers)
    except Denied as denied:
        return denied.status
    client.abort()
    return 101


async def origin(scale: Scale) -> Outcome:
    """Pages of other origins ask for a socket, under names that resemble an allowed one."""
    rounds = scale.pick(10, 500)
    async with scenario(
        "spoofs its origin",
        f"{rounds} rounds of nine origins, allowed are the page's own and https://*.app.example",
        moves=["refused.origin_refused"],
        settings={"origins": ["same-origin", "https://*.app.example"]},
    ) as harness:
        answers: Counter[str] = Counter()
        own = f"127.0.0.1:{harness.port}"
        false_origins = [
            "http://evil.example",
            f"http://{own}.evil.example",
            f"http://evil.example@{own}.evil.example",
            "http://127.0.0.1:1",
            "https://app.example.evil.example",
            "https://evilapp.example",
            "http://sub.app.example",
            "null",
            "https://app.example",
        ]
        for _ in range(rounds):
            for false in false_origins:
                status = await _answer(harness.port, headers=f"Origin: {false}\r\n")
                answers[f"{status} {false}"] += status != 403
        let_in = sorted(key for key, count in answers.items() if count)
        harness.outcome.expect(not let_in, f"let in: {let_in}")
        for true in (f"http://{own}", "https://sub.app.example"):
            status = await _answer(harness.port, headers=f"Origin: {true}\r\n")
            harness.outcome.expect(status == 101, f"{true} was answered {status}")
        return harness.outcome


async def host(scale: Scale) -> Outcome:
    """The Host header, and X-Forwarded-Host, name what the false origin names."""
    rounds = scale.pick(20, 1000)
    async with scenario(
        "spoofs its host",
        f"{rounds} handshakes whose Host agrees with a foreign Origin; origins are set by name",
        moves=["refused.origin_refused"],
        settings={"origins": ["https://app.example"]},
    ) as harness:
        headers = "Origin: https://evil.example\r\nX-Forwarded-Host: app.example\r\n"
        headers += "Forwarded: host=app.example;proto=https\r\n"
        path = "/ws"
        answers: Counter[int] = Counter()
        for _ in range(rounds):
            reader, writer = await open_connection("127.0.0.1", harness.port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Sec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
            )
            line = await asyncio.wait_for(reader.readline(), 30)
            answers[int(line.split()[1])] += 1
            writer.transport.abort()
        harness.outcome.found["answers"] = {str(key): count for key, count in answers.items()}
        harness.outcome.expect(set(answers) == {403}, f"answered {dict(answers)}")
        return harness.outcome


async def forwarded_address(scale: Scale) -> Outcome:
    """X-Forwarded-For is believed from the trusted proxy alone."""
    rounds = scale.pick(20, 1000)
    async with scenario(
        "spoofs its forwarded address",
        f"{rounds} clients from 127.0.0.1 and {rounds} through the trusted proxy 127.0.0.9",
        moves=["total_clients"],
        uvicorn={"proxy_headers": True, "forwarded_allow_ips": "127.0.0.9"},
    ) as harness:
        clients: list[RawClient] = []
        with abort_all(clients):
            for number in range(rounds):
                false = f"X-Forwarded-For: 6.6.{number // 250}.{number % 250}\r\n"
                clients.append(await connect(harness.port, headers=false))
            facts = await harness.server.ask("/facts")
            believed = [a for a in facts["addresses"] if a.startswith("6.6.")]
            harness.outcome.expect(
                not believed, f"a client that is no proxy was believed: {believed[:3]}"
            )
            for number in range(rounds):
                told = f"X-Forwarded-For: 198.51.{number // 250}.{number % 250}\r\n"
                clients.append(await connect(harness.port, headers=told, source="127.0.0.9"))
            facts = await harness.server.ask("/facts")
            known = [a for a in facts["addresses"] if a.startswith("198.51.")]
            harness.outcome.found["addresses told by the proxy"] = len(known)
            harness.outcome.expect(len(known) == rounds, "the proxy was not believed")
        return harness.outcome


async def replayed_token(scale: Scale) -> Outcome:
    """Tokens that are good for one socket are shown again and again."""
    count, replays = scale.pick(10, 100), scale.pick(5, 50)
    async with scenario(
        "replays a token",
        f"{count} tokens for one socket each, each shown {replays} times more",
        moves=["refused.unauthorized"],
        tickets=[f"{TOKEN}-{number}" for number in range(count)],
    ) as harness:
        harness.secrets = [TOKEN]
        answers: Counter[int] = Counter()
        for number in range(count):
            token = f"{TOKEN}-{number}"
            first = await _answer(harness.port, headers=_bearer(number))
            harness.outcome.expect(first == 101, f"a good token was answered {first}")
            for turn in range(replays):
                in_query = turn % 2
                path = f"/ws?token={token}" if in_query else "/ws"
                headers = "" if in_query else _bearer(number)
                answers[await _answer(harness.port, path, headers)] += 1
        harness.outcome.expect(set(answers) == {401}, f"replays were answered {dict(answers)}")
        return harness.outcome


async def expiring_token(scale: Scale) -> Outcome:
    """Tokens end while their clients are connected; they are closed, and their tokens are no good."""
    count, lives_s = scale.pick(10, 500), scale.pick(1.5, 10.0)
    async with scenario(
        "a token that expires while connected, to be closed",
        f"{count} clients with tokens for {lives_s:g} s",
        moves=["expired"],
        tickets=[f"{TOKEN}-{number}" for number in range(count)],
        token_lives_s=lives_s,
    ) as harness:
        harness.secrets = [TOKEN]
        clients: list[RawClient] = []
        with abort_all(clients):
            await _log_in(harness.port, clients, count)
            codes = await _expire(harness, clients, lives_s)
        harness.outcome.found["close codes"] = {str(code): n for code, n in codes.items()}
        return harness.outcome


async def refreshed_token(scale: Scale) -> Outcome:
    """Clients are asked for a new token: half of them show one and stay, the others are closed."""
    count, lives_s = scale.pick(10, 500), scale.pick(3.0, 10.0)
    async with scenario(
        "a token that expires while connected, to be refreshed",
        f"{count} clients with tokens for {lives_s:g} s, half of them refresh",
        moves=["expired"],
        settings={"on_expiry": "ask"},
        tickets=[f"{TOKEN}-{number}" for number in range(count)],
        token_lives_s=lives_s,
    ) as harness:
        harness.secrets = [TOKEN]
        clients: list[RawClient] = []
        with abort_all(clients):
            await _log_in(harness.port, clients, count)
            asked = await asyncio.gather(*(_is_asked(one, lives_s) for one in clients))
            harness.outcome.expect(all(asked), f"{asked.count(False)} were not asked")
            for one in clients[::2]:
                one.writer.write(frame(TEXT, b'{"type": "refresh", "seconds": 3600}'))
            await _expire(harness, clients[1::2], lives_s)
            stats = await harness.server.stats()
            stayed = stats["clients"] - len(harness.control_clients)
            harness.outcome.found["stayed"] = stayed
            harness.outcome.expect(stayed == len(clients[::2]), f"{stayed} stayed")
        return harness.outcome


def _bearer(number: int) -> str:
    return f"Authorization: Bearer {TOKEN}-{number}\r\n"


async def _log_in(port: int, clients: list[RawClient], count: int) -> None:
    """Connect clients, each with a token of its own."""
    for number in range(count):
        clients.append(await connect(port, headers=_bearer(number)))


async def _expire(harness: Harness, clients: Sequence[RawClient], lives_s: float) -> Counter[int]:
    """Expect all to be closed since their time is over; return the close codes."""
    ends = asyncio.gather(*(one.close_code() for one in clients))
    codes = Counter(await asyncio.wait_for(ends, 30 + lives_s))
    harness.outcome.expect(set(codes) == {3005}, f"closed with {dict(codes)}")
    return codes


async def _is_asked(one: RawClient, lives_s: float) -> bool:
    try:
        async with asyncio.timeout(30 + lives_s):
            while True:
                opcode, payload = await one.recv()
                if opcode == TEXT and b"expir" in payload:
                    return True
                if opcode == CLOSE:
                    return False
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return False


async def log_injection(scale: Scale) -> Outcome:
    """Line ends and terminal codes in ids, paths, headers, room names and close reasons."""
    rounds = scale.pick(5, 200)
    async with scenario(
        "log injection",
        f"{rounds} rounds of line ends in the id, the query, three headers, a room and a reason",
        moves=["refused.bad_id", "refused.origin_refused", "invalid"],
        settings={"client_id_from_query": True},
    ) as harness:
        harness.secrets = [TOKEN, PAYLOAD, "\x1b"]
        for _ in range(rounds):
            await _inject(harness)
        lines = harness.server.log()
        written = [line for line in lines if line.lstrip("\r\x85\u2028").startswith(MARK)]
        harness.outcome.expect(not written, f"a client wrote log lines: {written[:3]}")
        return harness.outcome


async def _inject(harness: Harness) -> None:
    port = harness.port
    for end in ("\n", "\r\n", "\x85", "\u2028", "\x1b[2J\n"):
        poison = quote(f"{end}{MARK} {end}")
        await _answer(port, f"/ws?id={poison}&token={TOKEN}")
        with suppress(OSError, asyncio.IncompleteReadError):
            await _answer(port, f"/ws/{poison}?access_token={TOKEN}")
    for byte in ("\x85", "\xa0", "\xad"):
        await _answer(port, headers=f"Origin: http://evil{byte}{MARK}\r\n")
        await _answer(port, headers=f"User-Agent: {byte}{MARK}\r\nCookie: {byte}{MARK}\r\n")
    client = await connect(port)
    for end in ("\\n", "\\u2028", "\\u001b[2J"):
        for text in (
            f'{{"type": "join", "room": "{end}{MARK} {PAYLOAD}"}}',
            f'{{"type": "{end}{MARK} {PAYLOAD}"',
            f'{{"type": 7, "{end}{MARK}": "{PAYLOAD}"}}',
        ):
            client.writer.write(frame(TEXT, text.encode()))
            client.writer.write(frame(BINARY, text.encode()))
    client.writer.write(frame(CLOSE, (4000).to_bytes(2) + f"\n{MARK} \u2028{MARK}".encode()))
    await asyncio.wait_for(client.close_code(), 30)
    client.abort()
