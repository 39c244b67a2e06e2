"""What a socket knows of the bytes that it was given, against real servers on 127.0.0.1."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from answering import asynchronous, until
from certificates import certificate
from connection.peers import QUICK, Inlet, server
from hubbub.connection import connect

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_fault_12_a_message_that_was_cut_goes_with_the_next_connection(
    loop: str, is_tls: bool, tmp_path: Path
) -> None:
    """The messages are larger than all buffers, so the one that is cut cannot have arrived."""

    @asynchronous
    async def scenario() -> None:
        inlet = Inlet()
        options: dict[str, Any] = {"max_size": None, "compression": None, "ping_interval": None}
        if is_tls:
            options["ssl"] = certificate(tmp_path)
        trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem") if is_tls else None
        async with server(inlet.serve, **options) as url:
            url = url.replace("ws:", "wss:") if is_tls else url
            async with connect(url, ssl=trusting, max_queue_bytes=2**26, **QUICK) as connection:
                await connection.wait_open()

                async def send_all() -> list[bool]:
                    return [await connection.send(f"{n}" + "x" * 2**23) for n in range(4)]

                sending = asyncio.create_task(send_all())
                await until(lambda: inlet.sockets)
                await asyncio.sleep(0.3)
                await until(lambda: connection.queued == 1)  # the server does not read
                inlet.sockets[0].transport.abort()
                results = await sending
                assert await connection.flush(10)
            await until(lambda: inlet.came[-1][-1:] == ["3"])
            taken = results.index(False)
            assert inlet.came[0] == []
            assert inlet.came[1] == [str(number) for number in range(taken, 4)]
            assert taken < 4
            assert connection.dropped == 0

    scenario(loop=LOOPS[loop])


@asynchronous
async def test_fault_12_a_message_to_a_socket_that_is_closing_goes_with_the_next() -> None:
    """A transport throws away without a word what is written to it after its end."""
    inlet = Inlet()
    inlet.is_first_deaf = False
    async with server(inlet.serve) as url, connect(url, **QUICK) as connection:
        await connection.wait_open()
        assert connection._socket is not None
        assert await connection.send("before") is True
        await until(lambda: inlet.came == [["before"]])
        connection._socket.transport.abort()
        assert connection.state == "open"
        assert await connection.send("after") is False
        await until(lambda: len(inlet.came) > 1 and inlet.came[1])
        assert inlet.came == [["before"], ["after"]]
        assert connection.dropped == 0
