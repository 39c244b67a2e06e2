"""Plain ASGI: no framework at all. The hub takes /ws and the lifespan, the rest is ours.

Needs: pip install ./hubbub   (./hubbub is the checkout)
Run:   uvicorn plain_asgi:app --ws hubbub:Protocol   (in this folder)
Try:   hubbub connect ws://localhost:8000/ws   (sends back what you type)
       curl localhost:8000   (says how many are there)
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hubbub import Client, Hub

Message = MutableMapping[str, Any]

hub = Hub()


async def pages(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        raise RuntimeError("there is only HTTP here")
    body = f"{len(hub)} connected\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@hub.on_message
def echo(client: Client, data: str | bytes) -> None:
    client.send(data)


app = hub.mount(pages, "/ws")
