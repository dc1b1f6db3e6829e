"""The page's routes: look, decide, and be told what happened."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import FastAPI, Request, Response
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, RedirectResponse

from connectors.cleaning.decisions import Outcome, decide, requeue, undo_changes
from connectors.cleaning.outputs import OutputBusyError, OutputError, published
from connectors.cleaning.page.views import SORTS, TABS, Filter, Shown
from connectors.cleaning.page.wishes import Button, Wish, some, what_happened, wish_of
from connectors.cleaning.run import load_run
from connectors.local_page.forms import base_css, form_of, own_file, policy_of
from connectors.local_page.guard import same
from connectors.local_page.messages import Messages, Told
from connectors.local_page.text import difference, shown, visible
from tasks.cleaning.report.render import percent

PACKAGE = "connectors.cleaning.page"


class Desk:
    """The run as it is published now, and what was told of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._shown: Shown | None = None
        self.messages = Messages()

    def shown(self, seen: str | None = None) -> Shown:
        """Return the published generation, read once.

        Args:
            seen: The generation that the person saw, None for whichever is published.

        Raises:
            OutputBusyError: When another one is published by now.
            OutputError: When there is none, or a file of it was altered.
        """
        with self._lock:
            place = published(self.folder)
            held = self._shown
            if held is None or place is None or held.run.place.generation != place.generation:
                held = self._shown = Shown.of(load_run(self.folder))
            if seen is not None and held.run.place.generation != seen:
                raise OutputBusyError(f"{self.folder}: another process has changed the run")
            return held

    def fulfil(self, wish: Wish, seen: str) -> Outcome:
        """Carry a decision out on the generation that the person saw.

        Raises:
            OutputError: When it cannot be carried out.
            ValueError: Likewise.
        """
        if wish.do == "undo":
            return undo_changes(self.folder, wish.chosen, seen=seen)
        if wish.do == "requeue":
            return requeue(self.folder, seen=seen)
        if wish.do == "forget":
            return requeue(self.folder, forget=wish.chosen, seen=seen)
        return decide(self.folder, wish.chosen, accept=wish.do == "accept", seen=seen)


def create_app(folder: Path, token: str) -> FastAPI:
    """Return the application for one run; ``local_page.guard.Guard`` must stand before it.

    Args:
        folder: Folder of the run.
        token: First part of every address.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    pages = _Pages(folder, token)
    for path in ("/{token}", "/{token}/"):
        app.get(path)(pages.home)
    app.get("/{token}/{tab}")(pages.look)
    app.post("/{token}/decide")(pages.decide)
    return app


class _Pages:
    def __init__(self, folder: Path, token: str) -> None:
        self._token, self._desk = token, Desk(folder)
        css = base_css() + own_file(PACKAGE, "page.css")
        script = own_file(PACKAGE, "page.js")
        self._policy = policy_of(css, script)
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        filters: dict[str, Callable[..., Any]] = {
            "count": lambda n: f"{n:,}",
            "percent": percent,
            "shown": shown,
            "visible": visible,
            "some": some,
            "quote": shlex.quote,
            "quoted": lambda text: quote(text, safe=""),
        }
        environment.filters |= filters
        environment.globals |= {
            "css": Markup(css),  # noqa: S704 - our own file
            "script": Markup(script),  # noqa: S704 - our own file
            "token": token,
            "difference": difference,
            "tabs": TABS,
            "sorts": SORTS,
            "folder": str(folder),
        }
        self._template = environment.from_string(own_file(PACKAGE, "page.html"))

    async def home(self) -> Response:
        """Go to the first tab."""
        return RedirectResponse(f"/{self._token}/{TABS[0]}", 303)

    def look(self, tab: str, request: Request) -> Response:
        """Show one page of a tab."""
        if tab not in TABS:
            return PlainTextResponse("404 Not Found: there is no such page\n", 404)
        query = dict(request.query_params)
        return self._page(
            Filter.of(tab, query), told=self._desk.messages.told(query.get("said", ""))
        )

    async def decide(self, request: Request) -> Response:
        """Carry out what a form asks for, or ask first."""
        fields = await form_of(request)
        if fields is None:
            return PlainTextResponse("413 Content Too Large: no form of this page\n", 413)
        if not same(fields.get("token", ""), self._token):
            return PlainTextResponse("403 Forbidden: reload the page\n", 403)
        return await run_in_threadpool(self._decide, fields)

    def _decide(self, fields: Mapping[str, str]) -> Response:
        view = {name: values[0] for name, values in parse_qs(fields.get("view", "")).items()}
        wanted = Filter.of(fields.get("tab", ""), view)
        button = Button.of(fields.get("do", ""))
        try:
            now = self._desk.shown(fields.get("generation", ""))
            wish = wish_of(now, wanted, button)
            if wish.question and not fields.get("sure"):
                return self._page(wanted, wish=wish, do=fields["do"])
            done = self._desk.fulfil(wish, now.run.place.generation)
            told = Told(what_happened(wish, done))
        except OutputBusyError:
            told = Told(
                "Nothing was done: another process has changed the run since this page was shown, "
                "or is doing so. Below is what holds now.",
                "bad",
            )
        except (ValueError, OSError) as error:
            told = Told(f"Nothing was done: {error}", "bad")
        said = urlencode(wanted.fields | {"said": self._desk.messages.tell(told)})
        return RedirectResponse(f"{wanted.tab}?{said}#{button.place}", 303)

    def _page(
        self,
        wanted: Filter,
        *,
        told: Told | None = None,
        wish: Wish | None = None,
        do: str = "",
    ) -> Response:
        try:
            shown_now = self._desk.shown()
        except (OutputError, OSError) as error:
            return PlainTextResponse(f"409 Conflict: {error}\n", 409)
        view = shown_now.view(wanted)
        wanted = replace(wanted, page=min(wanted.page, view.pages))
        facts = shown_now.run.facts
        html = self._template.render(
            run=shown_now.run,
            sizes=shown_now.sizes,
            counts=facts["counts"],
            promised_harm=facts["promised_harm"],
            filter=wanted,
            view=view,
            told=told,
            wish=wish,
            do=do,
        )
        headers = {"content-security-policy": self._policy}
        body = html.encode("utf-8", "replace")
        return Response(body, headers=headers, media_type="text/html; charset=utf-8")
