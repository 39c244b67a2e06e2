"""The page at /notifications: HTTP requests publish, sockets deliver."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ... import Client
from ..models.notification import KINDS, MAX_MESSAGE_CHARACTERS, SAMPLES, NotificationBoard
from ..views import Views
from .page import Page


class Post(msgspec.Struct):
    """The body of a request that publishes."""

    type: str = ""
    message: str = ""


class NotificationsPage(Page):
    """Everybody gets {"type": "info", "message", "number", "time"}. Nobody sends by socket."""

    name = "notifications"
    title = "Notifications"
    summary = "An ordinary HTTP request publishes; every open page shows it at once."

    def __init__(self, views: Views) -> None:
        super().__init__(views)
        self.board: NotificationBoard = NotificationBoard(self.run)
        self.hub.on_connect(self.connected)
        self.hub.on_message(self.ignored)

    def routes(self) -> list[BaseRoute]:
        return [
            *super().routes(),
            Route(self.path, self.publish, methods=["POST"]),
            Route(f"{self.path}/samples/{{kind}}", self.publish_sample, methods=["POST"]),
        ]

    def context(self, request: Request) -> dict[str, Any]:
        return {"kinds": KINDS, "max_characters": MAX_MESSAGE_CHARACTERS}

    async def publish(self, request: Request) -> Response:
        """Publish {"type", "message"} of the JSON body, and say to how many it went.

        JSON alone is taken: no foreign page's form can send it.
        """
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind.strip().lower() != "application/json":
            return JSONResponse({"error": "Send application/json"}, 415)
        try:
            post = msgspec.json.decode(await request.body(), type=Post)
            notification = self.board.post(post.type, post.message)
        except msgspec.ValidationError as error:
            return JSONResponse({"error": str(error)}, 422)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return JSONResponse({"error": "This is not JSON, or it is too deep"}, 400)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 422)
        receipt = await self.hub.everybody.publish(notification)
        return JSONResponse({"delivered_to": receipt.delivered_to}, 201)

    def publish_sample(self, request: Request) -> Response:
        """Publish a sample. A plain function: Starlette runs it in a thread, `broadcast` minds not."""
        kind = request.path_params["kind"]
        if kind not in SAMPLES:
            return JSONResponse({"error": f"The samples are {', '.join(SAMPLES)}"}, 404)
        self.hub.broadcast(self.board.post(kind, SAMPLES[kind]))
        return Response(status_code=204)

    def connected(self, client: Client) -> None:
        client.send({"type": "recent", "notifications": self.board.recent()})

    def ignored(self, client: Client, text: str) -> None:
        """Without a message handler the hub would pass on what clients send."""
