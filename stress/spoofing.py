"""Trials: clients that lie about where they come from and who they are, or mean to write the log.

What must not live here: how a trial is run and judged (`scenario.py`). `run.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from urllib.parse import quote

from .raw_client import BINARY, CLOSE, TEXT, Denied, Stranger, all_vanish, dial, frame, meet
from .scenario import Arena, Outcome, Scale, arena

TOKEN = "s3cr3t-t0ken"
PAYLOAD = "p4yl0ad-of-a-client"
MARK = "INJECTED"
"""What begins a log line that no client should have been able to write."""


async def _answer(port: int, path: str = "/ws", headers: str = "") -> int:
    """Shake hands; return the status of the answer."""
    try:
        stranger = await meet(port, path, headers=headers)
    except Denied as denied:
        return denied.status
    stranger.vanish()
    return 101


async def origin(scale: Scale) -> Outcome:
    """Pages of other origins ask for a socket, under names that resemble an allowed one."""
    rounds = scale.pick(10, 500)
    async with arena(
        "lies about its origin",
        f"{rounds} rounds of nine origins, allowed are the page's own and https://*.app.example",
        moves=["refused.origin_refused"],
        settings={"origins": ["same-origin", "https://*.app.example"]},
    ) as stage:
        answers: Counter[str] = Counter()
        own = f"127.0.0.1:{stage.port}"
        lies = [
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
            for lie in lies:
                status = await _answer(stage.port, headers=f"Origin: {lie}\r\n")
                answers[f"{status} {lie}"] += status != 403
        let_in = sorted(key for key, count in answers.items() if count)
        stage.outcome.expect(not let_in, f"let in: {let_in}")
        for truth in (f"http://{own}", "https://sub.app.example"):
            status = await _answer(stage.port, headers=f"Origin: {truth}\r\n")
            stage.outcome.expect(status == 101, f"{truth} was answered {status}")
        return stage.outcome


async def host(scale: Scale) -> Outcome:
    """The Host header, and X-Forwarded-Host, name what the lying origin names."""
    rounds = scale.pick(20, 1000)
    async with arena(
        "lies about its host",
        f"{rounds} handshakes whose Host agrees with a foreign Origin; origins are set by name",
        moves=["refused.origin_refused"],
        settings={"origins": ["https://app.example"]},
    ) as stage:
        headers = "Origin: https://evil.example\r\nX-Forwarded-Host: app.example\r\n"
        headers += "Forwarded: host=app.example;proto=https\r\n"
        path = "/ws"
        answers: Counter[int] = Counter()
        for _ in range(rounds):
            reader, writer = await dial("127.0.0.1", stage.port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Sec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
            )
            line = await asyncio.wait_for(reader.readline(), 30)
            answers[int(line.split()[1])] += 1
            writer.transport.abort()
        stage.outcome.found["answers"] = {str(key): count for key, count in answers.items()}
        stage.outcome.expect(set(answers) == {403}, f"answered {dict(answers)}")
        return stage.outcome


async def forwarded_address(scale: Scale) -> Outcome:
    """X-Forwarded-For is believed from the trusted proxy alone."""
    rounds = scale.pick(20, 1000)
    async with arena(
        "lies about its forwarded address",
        f"{rounds} clients from 127.0.0.1 and {rounds} through the trusted proxy 127.0.0.9",
        moves=["total_clients"],
        uvicorn={"proxy_headers": True, "forwarded_allow_ips": "127.0.0.9"},
    ) as stage:
        strangers: list[Stranger] = []
        with all_vanish(strangers):
            for number in range(rounds):
                lie = f"X-Forwarded-For: 6.6.{number // 250}.{number % 250}\r\n"
                strangers.append(await meet(stage.port, headers=lie))
            facts = await stage.victim.ask("/facts")
            liars = [a for a in facts["addresses"] if a.startswith("6.6.")]
            stage.outcome.expect(not liars, f"a stranger was believed: {liars[:3]}")
            for number in range(rounds):
                told = f"X-Forwarded-For: 198.51.{number // 250}.{number % 250}\r\n"
                strangers.append(await meet(stage.port, headers=told, source="127.0.0.9"))
            facts = await stage.victim.ask("/facts")
            known = [a for a in facts["addresses"] if a.startswith("198.51.")]
            stage.outcome.found["addresses told by the proxy"] = len(known)
            stage.outcome.expect(len(known) == rounds, "the proxy was not believed")
        return stage.outcome


async def replayed_token(scale: Scale) -> Outcome:
    """Tokens that are good for one socket are shown again and again."""
    count, replays = scale.pick(10, 100), scale.pick(5, 50)
    async with arena(
        "replays a token",
        f"{count} tokens for one socket each, each shown {replays} times more",
        moves=["refused.unauthorized"],
        tickets=[f"{TOKEN}-{number}" for number in range(count)],
    ) as stage:
        stage.secrets = [TOKEN]
        answers: Counter[int] = Counter()
        for number in range(count):
            token = f"{TOKEN}-{number}"
            first = await _answer(stage.port, headers=_bearer(number))
            stage.outcome.expect(first == 101, f"a good token was answered {first}")
            for turn in range(replays):
                in_query = turn % 2
                path = f"/ws?token={token}" if in_query else "/ws"
                headers = "" if in_query else _bearer(number)
                answers[await _answer(stage.port, path, headers)] += 1
        stage.outcome.expect(set(answers) == {401}, f"replays were answered {dict(answers)}")
        return stage.outcome


async def expiring_token(scale: Scale) -> Outcome:
    """Tokens end while their clients are connected; they are closed, and their tokens are no good."""
    count, lives_s = scale.pick(10, 500), scale.pick(1.5, 10.0)
    async with arena(
        "a token that expires while connected, to be closed",
        f"{count} clients with tokens for {lives_s:g} s",
        moves=["expired"],
        tickets=[f"{TOKEN}-{number}" for number in range(count)],
        token_lives_s=lives_s,
    ) as stage:
        stage.secrets = [TOKEN]
        strangers: list[Stranger] = []
        with all_vanish(strangers):
            for number in range(count):
                strangers.append(await meet(stage.port, headers=_bearer(number)))
            ends = asyncio.gather(*(one.close_code() for one in strangers))
            codes = Counter(await asyncio.wait_for(ends, 30 + lives_s))
        stage.outcome.found["close codes"] = {str(code): n for code, n in codes.items()}
        stage.outcome.expect(set(codes) == {3005}, f"closed with {dict(codes)}")
        return stage.outcome


async def renewed_token(scale: Scale) -> Outcome:
    """Clients are asked for a new token: half of them show one and stay, the others are closed."""
    count, lives_s = scale.pick(10, 500), scale.pick(3.0, 10.0)
    async with arena(
        "a token that expires while connected, to be renewed",
        f"{count} clients with tokens for {lives_s:g} s, half of them renew",
        moves=["expired"],
        settings={"on_expiry": "ask"},
        tickets=[f"{TOKEN}-{number}" for number in range(count)],
        token_lives_s=lives_s,
    ) as stage:
        stage.secrets = [TOKEN]
        strangers: list[Stranger] = []
        with all_vanish(strangers):
            for number in range(count):
                strangers.append(await meet(stage.port, headers=_bearer(number)))
            asked = await asyncio.gather(*(_is_asked(one, lives_s) for one in strangers))
            stage.outcome.expect(all(asked), f"{asked.count(False)} were not asked")
            for one in strangers[::2]:
                one.writer.write(frame(TEXT, b'{"type": "renew", "seconds": 3600}'))
            ends = asyncio.gather(*(one.close_code() for one in strangers[1::2]))
            codes = Counter(await asyncio.wait_for(ends, 30 + lives_s))
            stage.outcome.expect(set(codes) == {3005}, f"closed with {dict(codes)}")
            stats = await stage.victim.stats()
            stayed = stats["clients"] - len(stage.healthy)
            stage.outcome.found["stayed"] = stayed
            stage.outcome.expect(stayed == len(strangers[::2]), f"{stayed} stayed")
        return stage.outcome


def _bearer(number: int) -> str:
    return f"Authorization: Bearer {TOKEN}-{number}\r\n"


async def _is_asked(one: Stranger, lives_s: float) -> bool:
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
    async with arena(
        "log injection",
        f"{rounds} rounds of line ends in the id, the query, three headers, a room and a reason",
        moves=["refused.bad_id", "refused.origin_refused", "invalid"],
        settings={"client_id_from_query": True},
    ) as stage:
        stage.secrets = [TOKEN, PAYLOAD, "\x1b"]
        for _ in range(rounds):
            await _inject(stage)
        lines = stage.victim.log()
        written = [line for line in lines if line.lstrip("\r\x85\u2028").startswith(MARK)]
        stage.outcome.expect(not written, f"a client wrote log lines: {written[:3]}")
        return stage.outcome


async def _inject(stage: Arena) -> None:
    port = stage.port
    for end in ("\n", "\r\n", "\x85", "\u2028", "\x1b[2J\n"):
        poison = quote(f"{end}{MARK} {end}")
        await _answer(port, f"/ws?id={poison}&token={TOKEN}")
        with suppress(OSError, asyncio.IncompleteReadError):
            await _answer(port, f"/ws/{poison}?access_token={TOKEN}")
    for byte in ("\x85", "\xa0", "\xad"):
        await _answer(port, headers=f"Origin: http://evil{byte}{MARK}\r\n")
        await _answer(port, headers=f"User-Agent: {byte}{MARK}\r\nCookie: {byte}{MARK}\r\n")
    stranger = await meet(port)
    for end in ("\\n", "\\u2028", "\\u001b[2J"):
        for text in (
            f'{{"type": "join", "room": "{end}{MARK} {PAYLOAD}"}}',
            f'{{"type": "{end}{MARK} {PAYLOAD}"',
            f'{{"type": 7, "{end}{MARK}": "{PAYLOAD}"}}',
        ):
            stranger.writer.write(frame(TEXT, text.encode()))
            stranger.writer.write(frame(BINARY, text.encode()))
    stranger.writer.write(frame(CLOSE, (4000).to_bytes(2) + f"\n{MARK} \u2028{MARK}".encode()))
    await asyncio.wait_for(stranger.close_code(), 30)
    stranger.vanish()
