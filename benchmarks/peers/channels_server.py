"""Django Channels: a consumer, a group and a channel layer: the in-memory one, or with BROKER_URL that of
channels_redis.

The layer's capacity is raised: at its default of 100 it drops messages of a burst without a word. So is the number of
connections to the server: at redis-py's default of 100 consumers fail.

Run:  uvicorn channels_server:app --loop uvloop --http httptools
"""

import os
from typing import Any
from urllib.parse import parse_qs

import django
from django.conf import settings

url = os.environ.get("BROKER_URL")
own: dict[str, Any] = (
    {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [f"{url}?max_connections=5000"]},
    }
    if url
    else {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {}}
)
settings.configure(
    INSTALLED_APPS=["channels"],
    SECRET_KEY="a benchmark has no secrets",
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": own["BACKEND"],
            "CONFIG": {"capacity": 100_000, **own["CONFIG"]},
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402


class Talk(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        query = parse_qs(self.scope["query_string"].decode())
        self.is_echo = "mode" in query
        self.group = "room_" + query.get("room", ["all"])[0]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.is_echo:
            await self.send(text_data=text_data)
        else:
            event = {"type": "chat.message", "message": text_data}
            await self.channel_layer.group_send(self.group, event)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["message"])


app = ProtocolTypeRouter({"websocket": URLRouter([path("ws", Talk.as_asgi())])})
