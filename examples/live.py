"""Live data: a ticker that runs while somebody listens.

Needs:  pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:    uvicorn live:app --ws hubbub:Protocol   (in this folder)
Listen: hubbub connect ws://localhost:8000/ws
"""

import random
from datetime import UTC, datetime

from fastapi import FastAPI

from hubbub import Client, CommandError, Hub

hub = Hub()
app = FastAPI()
app.include_router(hub.router("/ws"))
price = 100.0


@hub.every(1.0, while_connected=True)
def tick() -> None:
    global price
    price = round(price * random.uniform(0.99, 1.01), 2)
    hub.broadcast({"type": "tick", "price": price, "time": datetime.now(UTC)})


@hub.on_message
def said(client: Client, text: str) -> None:
    raise CommandError("listen_only", "this socket only listens")
