"""Starlette: the hub as an ASGI endpoint, and in every request's state.

Needs:  pip install ./hubbub starlette   (./hubbub is the checkout)
Run:    uvicorn starlette_app:app --ws hubbub:Protocol   (in this folder)
Listen: hubbub connect ws://localhost:8000/ws
Try:    curl --data "Lunch is ready" localhost:8000/say
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hubbub import Client, CommandError, Hub

hub = Hub()


async def say(request: Request) -> JSONResponse:
    """Broadcast the request's body; the lifespan has put the hub into the state."""
    request.state.hub.broadcast((await request.body()).decode())
    return JSONResponse({"clients": len(request.state.hub)})


@hub.on_message
def said(client: Client, text: str) -> None:
    raise CommandError("listen_only", "this socket only listens")


app = Starlette(
    routes=[
        Route("/say", say, methods=["POST"]),
        *hub.routes("/ws"),  # the socket, why it was refused, /ws/hubbub.js
    ],
    lifespan=hub.lifespan,
)
