"""The demo as a module attribute, for servers that want one: `uvicorn hubbub.demo.app:app`."""

from __future__ import annotations

from . import create_app

app = create_app()
