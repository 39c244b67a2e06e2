"""The demo as a module attribute, for servers that want one: `uvicorn hubbub.demo.app:app`."""

from __future__ import annotations

from starlette.applications import Starlette

from . import create_app

app: Starlette = create_app()
