"""The routes of the labelling page: look, say, take back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, RedirectResponse

from connectors.defects.labelling.forms import MAX_FIELDS, PER_GRID, many_of, one_of
from connectors.defects.labelling.history import History, LabelError, checked_kind
from connectors.defects.labelling.pictures import Pictures
from connectors.defects.labelling.progress import Progress, progress_of
from connectors.defects.labelling.queue import Order, Queue
from connectors.defects.labelling.store import LabelStore, decision
from connectors.local_page.forms import base_css, form_of, own_file, policy_of
from connectors.local_page.guard import same
from connectors.local_page.messages import Messages, Told
from connectors.local_page.text import shown, visible
from tasks.cleaning.images.decode import ImageRefusedError

PACKAGE = "connectors.defects.labelling"
AHEAD = 3
"""Images that the browser is told to fetch before they are asked for."""
PER_LIST = 60
ORDERS: Mapping[str, str] = {"ranked": "most telling first", "drawn": "at random"}
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><rect width="24" height="24" '
    'rx="5" fill="#0d2c45"/><path d="M3 5h6a4 4 0 0 1 4 4v6a4 4 0 0 0 4 4h4" fill="none" '
    'stroke="#7fd0ff" stroke-width="2.4" stroke-linecap="round"/></svg>'
)
KEEP_IMAGE = {"cache-control": "private, max-age=3600"}


def create_app(
    store: LabelStore,
    pictures: Pictures,
    queue: Queue,
    token: str,
    kinds: tuple[str, ...] = (),
    parts: Mapping[str, str] | None = None,
) -> FastAPI:
    """Return the application for one folder; ``local_page.guard.Guard`` must stand before it.

    Args:
        store: Keeps what is said.
        pictures: The images.
        queue: Their order.
        token: First part of every address.
        kinds: Types that have a button from the start.
        parts: Physical parts that images show, where they are known.

    Raises:
        LabelError: When one of them cannot be a type's name.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    known = tuple(checked_kind(kind) for kind in kinds)
    pages = _Pages(store, pictures, queue, token, known, parts or {})
    for path in ("/{token}", "/{token}/"):
        app.get(path)(pages.home)
    app.get("/{token}/next")(pages.next)
    app.get("/{token}/one/{place}")(pages.one)
    app.get("/{token}/many")(pages.many)
    app.get("/{token}/said")(pages.said)
    app.get("/{token}/icon.svg")(pages.icon)
    app.get("/{token}/{what}/{place}.png")(pages.picture)
    for path in ("say", "say-many", "undo"):
        app.post(f"/{{token}}/{path}")(pages.post)
    return app


class _Pages:
    def __init__(
        self,
        store: LabelStore,
        pictures: Pictures,
        queue: Queue,
        token: str,
        kinds: tuple[str, ...],
        parts: Mapping[str, str],
    ) -> None:
        self._store, self._pictures, self._queue = store, pictures, queue
        self._parts = parts
        # A folder's name that cannot be a type's gets no button.
        self._token, self._kinds = token, (*kinds, *filter(_can_be_kind, pictures.kinds))
        self._messages = Messages()
        self._done: list[list[str]] = []  # ids of decisions taken here, together and in order
        css, script = base_css() + own_file(PACKAGE, "page.css"), own_file(PACKAGE, "page.js")
        self._policy = policy_of(css, script, "img-src 'self'")
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        filters: dict[str, Callable[..., Any]] = {
            "count": lambda n: f"{n:,}",
            "number": lambda x: f"{x:g}",
            "shown": shown,
            "visible": visible,
        }
        environment.filters |= filters
        environment.globals |= {
            "css": Markup(css),  # noqa: S704 - our own file
            "script": Markup(script),  # noqa: S704 - our own file
            "token": token,
            "orders": ORDERS,
            "folder": str(store.folder),
            "has_heat": pictures.has_heat,
        }
        self._template = environment.from_string(own_file(PACKAGE, "page.html"))

    async def home(self) -> Response:
        """Go to the first image."""
        return RedirectResponse(f"/{self._token}/next", 303)

    async def icon(self) -> Response:
        """Return the sign of the browser's tab; it would ask elsewhere without one."""
        return Response(ICON, media_type="image/svg+xml", headers=KEEP_IMAGE)

    def next(self, request: Request) -> Response:
        """Go to the next image without a label; behind one that is skipped where that is named."""
        query = dict(request.query_params)
        order, history = _order(query), self._store.history()
        skipped = _number(query.get("after"))
        places = list(self._queue.places(order, history.holding()))
        if skipped in places:
            places = places[places.index(skipped) + 1 :] or places
        said = {"said": query["said"]} if "said" in query else {}
        if not places:
            return self._go("said", said)
        return self._go(f"one/{places[0]}", {"order": order, **said})

    def one(self, place: str, request: Request) -> Response:
        """Show one image."""
        query, at = dict(request.query_params), _number(place)
        if at is None or at >= len(self._pictures.files):
            return PlainTextResponse("404 Not Found: there is no such image\n", 404)
        name, order, history = self._pictures.files[at].name, _order(query), self._store.history()
        try:
            width, height = self._pictures.size(at)
        except ImageRefusedError as error:
            told = Told(f"{name} cannot be shown ({error}); the next one follows.", "bad")
            said = self._messages.tell(told)
            return self._go("next", {"order": order, "after": str(at), "said": said})
        ahead = [p for p in self._queue.places(order, history.holding()) if p != at]
        held = history.holds(name)
        before = _before(history, name)
        return self._page(
            "one", order, query, history,
            name=name, place=at, width=width, height=height, held=held,
            seen=held.id if held else "",
            reason=self._queue.reason(at) if order == "ranked" else "",
            before=None if before is None else self._pictures.places.get(before),
            ahead=json.dumps([f"image/{p}.png" for p in ahead[:AHEAD]]),
            heat=query.get("heat") == "1",
        )  # fmt: skip

    def many(self, request: Request) -> Response:
        """Show many images at once."""
        query, history = dict(request.query_params), self._store.history()
        order = _order(query)
        places = list(self._queue.places(order, history.holding()))[:PER_GRID]
        images = [(place, self._pictures.files[place].name) for place in places]
        return self._page("many", order, query, history, images=images)

    def said(self, request: Request) -> Response:
        """Show what was said, the last first."""
        query, history = dict(request.query_params), self._store.history()
        last = history.by_time()[::-1]
        pages = max(1, -(-len(last) // PER_LIST))
        page = min(max(_number(query.get("page")) or 1, 1), pages)
        some = last[(page - 1) * PER_LIST : page * PER_LIST]
        rows = [(self._pictures.places.get(one.image), one) for one in some]
        return self._page("said", _order(query), query, history, rows=rows, page=page, pages=pages)

    def picture(self, what: str, place: str) -> Response:
        """Return an image, its thumbnail, or where it looks defective."""
        makers = {
            "image": self._pictures.image,
            "thumbnail": self._pictures.thumbnail,
            "heat": self._pictures.heat,
        }
        at = _number(place)
        if what not in makers or at is None or at >= len(self._pictures.files):
            return PlainTextResponse("404 Not Found: there is no such image\n", 404)
        try:
            return Response(makers[what](at), media_type="image/png", headers=KEEP_IMAGE)
        except (ImageRefusedError, LookupError) as error:
            return PlainTextResponse(f"404 Not Found: {error}\n", 404)

    async def post(self, request: Request) -> Response:
        """Write down what a form says."""
        fields = await form_of(request, MAX_FIELDS)
        if fields is None:
            return PlainTextResponse("413 Content Too Large: no form of this page\n", 413)
        if not same(fields.get("token", ""), self._token):
            return PlainTextResponse("403 Forbidden: reload the page\n", 403)
        do = {"say": self._say, "say-many": self._say_many, "undo": self._undo}
        return await run_in_threadpool(do[request.url.path.rpartition("/")[2]], fields)

    def _say(self, fields: Mapping[str, str]) -> Response:
        name, order = fields.get("image", ""), _order(fields)
        place = self._pictures.places.get(name)
        if place is None:
            return PlainTextResponse("404 Not Found: there is no such image\n", 404)
        try:
            one = one_of(fields, self._pictures.size(place))
            made = decision(name, one.said, one.kind, one.boxes, drawn=order == "drawn")
            self._store.say_all([made], {name: fields.get("seen", "")})
        except (LabelError, ImageRefusedError, OSError) as error:
            return self._go(f"one/{place}", {"order": order, "said": self._refused(error)})
        self._done.append([made.id])
        told = self._messages.tell(Told(f"{name}: {one}."))
        return self._go("next", {"order": order, "said": told})

    def _say_many(self, fields: Mapping[str, str]) -> Response:
        order = _order(fields)
        try:
            said, seen = many_of(fields, self._pictures.places)
            made = [decision(n, one, drawn=order == "drawn") for n, one in said.items()]
            self._store.say_all(made, seen)
        except (LabelError, OSError) as error:
            told = self._refused(error)
        else:
            self._done.append([one.id for one in made])
            ng = sum(one == "ng" for one in said.values())
            told = self._messages.tell(Told(f"{len(made) - ng} images OK, {ng} NG."))
        return self._go("many", {"order": order, "said": told})

    def _undo(self, fields: Mapping[str, str]) -> Response:
        ids = [one for one in fields.get("ids", "").split(",") if one]
        order = _order(fields)
        try:
            undone = self._store.undo(ids)
        except (LabelError, OSError) as error:
            said = self._refused(error)
            return self._go("next", {"order": order, "said": said})
        self._done = [each for each in self._done if each != ids]
        place = self._pictures.places.get(undone[0].image)
        if len(undone) > 1 or place is None:
            told = self._messages.tell(Told(f"Taken back: {len(undone)} labels."))
            return self._go("many", {"order": order, "said": told})
        told = self._messages.tell(Told(f"Taken back: {undone[0].image}."))
        return self._go(f"one/{place}", {"order": order, "said": told})

    def _refused(self, error: Exception) -> str:
        return self._messages.tell(Told(f"Nothing was written: {error}.", "bad"))

    def _undoable(self, history: History) -> list[str]:
        """Return the ids of what was said last: here, else by anybody."""
        while self._done and any(one in history.undone for one in self._done[-1]):
            self._done.pop()
        if self._done:
            return self._done[-1]
        last = history.last()
        return [last.id] if last else []

    def _progress(self, history: History) -> Progress:
        troubles, copies = self._pictures.troubles, self._queue.copies
        names = [
            file.name
            for place, file in enumerate(self._pictures.files)
            if file.name not in troubles and place not in copies
        ]
        return progress_of(names, len(copies), history, self._parts)

    def _page(
        self, view: str, order: Order, query: Mapping[str, str], history: History, **facts: Any
    ) -> Response:
        undo = self._undoable(history)
        kinds = list(dict.fromkeys([*self._kinds, *history.kinds()]))
        html = self._template.render(
            view=view,
            order=order,
            told=self._messages.told(query.get("said", "")),
            progress=self._progress(history),
            kinds=kinds,
            undo=",".join(undo),
            undo_name=history.decisions[undo[0]].image if undo else "",
            undo_number=len(undo),
            queue=self._queue,
            troubles=dict(list(self._pictures.troubles.items())[:PER_LIST]),
            trouble_number=len(self._pictures.troubles),
            **facts,
        )
        headers = {"content-security-policy": self._policy}
        body = html.encode("utf-8", "replace")
        return Response(body, headers=headers, media_type="text/html; charset=utf-8")

    def _go(self, path: str, query: Mapping[str, str]) -> Response:
        tail = f"?{urlencode(query)}" if query else ""
        return RedirectResponse(f"/{self._token}/{path}{tail}", 303)


def _can_be_kind(name: str) -> bool:
    try:
        checked_kind(name)
    except LabelError:
        return False
    return True


def _order(fields: Mapping[str, str]) -> Order:
    order = fields.get("order", "")
    return cast("Order", order) if order in ORDERS else "ranked"


def _number(text: str | None) -> int | None:
    """Return a number that a person or a page wrote, None for anything else."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 8):
        return None
    return int(text)


def _before(history: History, name: str) -> str | None:
    """Return the image that was labelled before one; the last one where it has no label."""
    names = [one.image for one in history.by_time()]
    if name in names:
        names = names[: names.index(name)]
    return names[-1] if names else None
