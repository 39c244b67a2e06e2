"""Tokens: who is it, or 401 before the upgrade; and messages to one user.

Needs: pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:   uvicorn auth:app --ws hubbub:Protocol   (in this folder)
See:   http://localhost:8000/?token=ann-secret   and   http://localhost:8000/?token=wrong
Try:   hubbub connect "ws://localhost:8000/ws?token=bob-secret"   (and type: ann: hello)
"""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from hubbub import Client, Handshake, Hub, Identity, Refused

USERS = {"ann-secret": "ann", "bob-secret": "bob"}
PAGE = """<!doctype html>
<meta charset="utf-8"><title>Tokens</title><link rel="icon" href="data:,">
<p id="state"></p><ol id="log"></ol>
<script type="module">
  import { Hubbub } from "/ws/hubbub.js";
  const hub = new Hubbub("/ws" + location.search);
  const show = (id, text) => (document.getElementById(id).textContent = text);
  hub.on("state", (state) => show("state", state));
  hub.on("stop", ({ code, reason }) => show("state", `stopped: ${code} ${reason}`));
  hub.on("message", (text) => document.getElementById("log").append(
    Object.assign(document.createElement("li"), { textContent: text })));
</script>
"""

hub = Hub()
app = FastAPI()
app.include_router(hub.router("/ws"))


@hub.authenticate
def who(handshake: Handshake) -> Identity:
    user = USERS.get(handshake.token or "")
    if user is None:
        raise Refused(401, message="This token is not valid")
    return Identity(user=user)


@hub.on_connect
def welcome(client: Client) -> None:
    client.send(f"You are {client.user}")


@hub.on_message
def to_the_other(client: Client, text: str) -> None:
    """Send "bob: hello" to bob, on all the sockets that he has."""
    user, _, message = text.partition(": ")
    hub.to_user(user).send(f"{client.user} whispers: {message}")


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return PAGE
