"""Views: the Jinja2 templates beside this file, and what renders them. Escaping is always on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from ... import __version__

if TYPE_CHECKING:
    from ..controllers.page import Page

FOLDER = Path(__file__).parent


class Views:
    """Renders templates. `navigation` lists the pages that are linked from one another."""

    def __init__(self) -> None:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates = Jinja2Templates(env=environment)
        self.navigation: Sequence[Page] = ()

    def render(self, request: Request, template: str, **context: Any) -> Response:
        """Answer a request with a rendered template."""
        common = {"pages": self.navigation, "version": __version__}
        return self._templates.TemplateResponse(request, template, {**common, **context})
