"""The worker class with which gunicorn serves the smoke matrix, as docs/guides/deployment.md has it."""

from __future__ import annotations

from typing import Any

from uvicorn_worker import UvicornWorker


class HubWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn with the native transport."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012
        "loop": "auto",
        "http": "hubbub:HttpProtocol",
        "ws": "hubbub:Protocol",
    }
