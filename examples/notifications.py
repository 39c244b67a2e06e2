"""Notifications: an HTTP request publishes, every socket hears it.

Needs:  pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:    uvicorn notifications:app --ws hubbub:Protocol   (in this folder)
Listen: hubbub connect ws://localhost:8000/ws
Post:   curl -X POST "localhost:8000/notify?message=Lunch+is+ready"
"""

from datetime import UTC, datetime
from typing import Literal

from fastapi import FastAPI

from hubbub import Client, CommandError, Hub

# Not just any word: clients take what the hub itself sends (its `refresh`, say) by its type too.
Kind = Literal["info", "success", "warning", "error"]

hub = Hub()
app = FastAPI()
app.include_router(hub.router("/ws"))


@app.post("/notify", status_code=202)
def notify(message: str, kind: Kind = "info") -> dict[str, int]:
    """Publish. A plain function runs in a thread; `broadcast` may be called from any."""
    hub.broadcast({"type": kind, "message": message, "time": datetime.now(UTC)})
    return {"clients": len(hub)}


@hub.on_message
def said(client: Client, text: str) -> None:
    raise CommandError("listen_only", "this socket only listens")
