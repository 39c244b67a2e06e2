"""A scoreboard: games that remember their goals, who is watching, and one line for many processes.

Needs:  pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:    uvicorn scoreboard:app --ws hubbub:Protocol   (in this folder)
Watch:  hubbub connect "ws://localhost:8000/ws?game=final&name=ann"
Score:  curl -X POST "localhost:8000/goals/final?team=reds"

In one process everything is in its memory. For several, on however many machines, change the line with the broker, to
broker="valkey://localhost:6379", say. Nothing else knows.
"""

import json
from typing import Any

from fastapi import FastAPI

from hubbub import Client, Handshake, Hub, Identity, Position, RoomRules

hub = Hub(
    broker="memory://",
    room_rules=[RoomRules("game:*", history=100, presence=True)],
)
app = FastAPI()
app.include_router(hub.router("/ws"))


@hub.authenticate
def who(handshake: Handshake) -> Identity:
    """Take everybody at their word: in an application of your own a session or a token says who it is."""
    return Identity(user=handshake.query.get("name"))


@hub.on_connect
async def watch(client: Client, handshake: Handshake) -> None:
    """Show a game; who was here before says where that was, and is shown what came since."""
    query = handshake.query
    offset, epoch = query.get("offset", ""), query.get("epoch")
    since = Position(int(offset), epoch) if offset.isdecimal() and epoch else None
    joined = await client.subscribe(f"game:{query.get('game', 'final')}", since=since)
    client.send({"type": "watching", "is_whole": joined.recovered, "position": joined.position})


@app.post("/goals/{game}")
async def score(game: str, team: str) -> dict[str, Any]:
    """Publish a goal."""
    receipt = await hub.publish(f"game:{game}", {"type": "goal", "team": team})
    return {"position": receipt.position}


@app.get("/goals/{game}")
async def goals(game: str) -> dict[str, Any]:
    """Return the goals so far, and who watches."""
    kept = await hub.history(f"game:{game}")
    watching = await hub.presence(f"game:{game}")
    return {
        "goals": [json.loads(each.data)["team"] for each in kept.publications],
        "watching": sorted(info.user or "" for info in watching.values()),
    }
