"""Tokens of a language model, 50 a second: two tabs see the same, and a reload in the middle goes on.

Needs: pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:   uvicorn tokens_app:app --ws hubbub:Protocol   (in this folder)
See:   http://localhost:8000/ , ask, then open the same address in a second tab, and reload one of them.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from hubbub import Client, Handshake, Hub, Position, RoomRules, StreamUnheard

TOKENS_PER_SECOND = 50
TOKENS = 1000
WORDS = ("sea", "night", "light", "bird", "stone", "slow", "bright", "sings", "falls", "under")

hub = Hub(room_rules=[RoomRules("answer:*", stream=True, history=10_000)])
app = FastAPI()
app.include_router(hub.router("/ws"))
writing: set[asyncio.Task[None]] = set()


async def generated() -> AsyncIterator[str]:
    """Stands for a language model: `async for chunk in llm.astream(question)`, say."""
    for number in range(1, TOKENS + 1):
        await asyncio.sleep(1 / TOKENS_PER_SECOND)
        yield random.choice(WORDS) + (".\n" if number % 12 == 0 else " ")


async def write(room: str) -> None:
    # Who has closed all its tabs pays for no more tokens; a reload takes less than ten seconds.
    with suppress(StreamUnheard):
        async with hub.room(room).stream(unheard_s=10) as stream:
            async for token in generated():
                await stream.append(token)


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/ask")
async def ask() -> dict[str, str]:
    answer = secrets.token_urlsafe(8)
    task = asyncio.create_task(write(f"answer:{answer}"))
    writing.add(task)
    task.add_done_callback(writing.discard)
    return {"answer": answer}


@hub.on_connect
async def listen(client: Client, handshake: Handshake) -> None:
    """Give the text so far, or, to a page that knows how far it was, what came after that."""
    query = handshake.query
    offset, epoch = query.get("offset", ""), query.get("epoch")
    since = Position(int(offset), epoch) if offset.isdecimal() and epoch else None
    await client.subscribe(f"answer:{query.get('answer', '')}", since=since)
