"""The demo as a module attribute, for servers that want one: `uvicorn hubbub.demo.app:app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import create_app

if TYPE_CHECKING:
    from starlette.applications import Starlette

app: Starlette = create_app()
