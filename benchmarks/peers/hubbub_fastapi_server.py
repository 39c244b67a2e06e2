"""The hub of `hubbub_server.py` in FastAPI's router.

Run:  uvicorn hubbub_fastapi_server:app --ws hubbub:Protocol --loop uvloop
"""

from fastapi import FastAPI
from hubbub_server import hub

app = FastAPI()
app.include_router(hub.router("/ws"))
