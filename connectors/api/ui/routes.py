"""Routes of the page. Logged in by a token with scope ``read``; everything is rendered here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import orjson
from fastapi import FastAPI, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import RedirectResponse, StreamingResponse

from connectors.api.kept_answers import unpack_answer
from connectors.api.live import MAX_WATCHERS
from connectors.api.problem import Problem, forbidden, too_many
from connectors.api.rate_limit import TokenBucket
from connectors.api.routes import entity_or_problem
from connectors.api.ui import figures
from connectors.api.ui.sessions import COOKIE, Sessions
from tasks.explain.groups import window_words
from tasks.fraud.ingest.identifiers import BLANKS, event_key
from tasks.fraud.online.parse import MAX_ID_BYTES

if TYPE_CHECKING:
    from connectors.api.service import Service

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FOLDER = Path(__file__).parent
FILES = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
MAX_FORM_BYTES = 4_096
LOGIN_RATE = TokenBucket(rate=2.0, burst=10.0)
SHOWN = 40


def add_pages(app: FastAPI, service: Service) -> None:
    """Add every page."""
    pages = _Pages(service)
    app.get("/ui", include_in_schema=False)(pages.live)
    app.get("/ui/", include_in_schema=False)(pages.live)
    app.get("/ui/login", include_in_schema=False)(pages.login)
    app.post("/ui/login", include_in_schema=False)(pages.log_in)
    app.post("/ui/logout", include_in_schema=False)(pages.log_out)
    app.get("/ui/live", include_in_schema=False)(pages.stream)
    app.get("/ui/search", include_in_schema=False)(pages.search)
    app.get("/ui/entity", include_in_schema=False)(pages.entity)
    app.get("/ui/event", include_in_schema=False)(pages.event)
    for name in FILES:
        app.get(f"/ui/{name}", include_in_schema=False)(_file(name))


class _Pages:
    """The handlers; each returns a page, a redirect, or the login."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sessions = Sessions(service.settings.session_hours * 3_600, time.monotonic)
        self._logins = TokenBucket(LOGIN_RATE.rate, LOGIN_RATE.burst, at=time.monotonic())
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        config = service.config
        self._templates.globals.update(
            columns=[(e.column, e.column.replace("_", " "), e.kind) for e in config.entities],
            kinds=list(config.kinds),
            words=figures.DECISION_WORDS,
            dataset=config.name,
        )
        self._templates.filters.update(
            percent=figures.percent,
            clock=figures.clock,
            plain=figures.plain_time,
            width=figures.share_width,
            window=window_words,
            money=lambda value: figures.money(value, config.decimals),
            entity_link=_entity_link,
            event_link=_event_link,
        )

    async def live(self, request: Request) -> Response:
        """Show decisions as they are made."""
        if not self._known(request):
            return _to_login(request)
        service = self._service
        return self._page(
            "live.html",
            recent=service.live.recent(SHOWN),
            alerts=list(service.live.alerts)[-SHOWN:][::-1],
            counts=service.live.totals,
            model=service.models.describe(),
            rules=service.engine.rules,
        )

    async def login(self, request: Request) -> Response:
        """Ask for a token."""
        return self._page("login.html", failed=False, after=_after(request.query_params.get("to")))

    async def log_in(self, request: Request) -> Response:
        """Exchange a token for a cookie."""
        seconds = self._logins.take(1, time.monotonic())
        if seconds:
            raise too_many(seconds)
        form = await _form(request)
        after = _after(form.get("to"))
        token = self._service.tokens.find(form.get("token", "").strip().encode())
        if token is None:
            return self._page("login.html", failed=True, after=after, status=401)
        if not token.allows("read"):
            raise forbidden(token.name, "read")
        response = RedirectResponse(after, 303)
        response.set_cookie(
            COOKIE,
            self._sessions.begin(token.name),
            max_age=round(self._sessions.seconds),
            path="/ui",
            secure=self._service.settings.tls_certificate is not None,
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(self, request: Request) -> Response:
        """End the login."""
        self._sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/ui/login", 303)
        response.delete_cookie(COOKIE, path="/ui")
        return response

    async def stream(self, request: Request) -> Response:
        """Send decisions as server-sent events."""
        if not self._known(request):
            raise Problem(401, "unauthorised", "the login is over", "Log in at /ui/login")
        if self._service.live.watchers >= MAX_WATCHERS:
            raise Problem(
                503, "too-many-watchers", "too many pages watch", headers={"retry-after": "5"}
            )
        events = self._service.live.watch(lambda: self._service.stopping)
        return StreamingResponse(events, media_type="text/event-stream")

    async def search(self, request: Request) -> Response:
        """Go to the page of an entity or event."""
        kind, text = request.query_params.get("kind", ""), request.query_params.get("id", "")
        text = text.strip(BLANKS)
        if not text:
            return RedirectResponse("/ui", 303)
        target = _event_link(text) if kind == "event" else _entity_link(text, kind)
        return RedirectResponse(target, 303)

    async def entity(self, request: Request) -> Response:
        """Show the state of an entity and its newest events."""
        if not self._known(request):
            return _to_login(request)
        kind, text = request.query_params.get("kind", ""), request.query_params.get("id", "")
        try:
            told = entity_or_problem(self._service, kind, text)
        except Problem as problem:
            return self._missing(problem.what, problem.status)
        return self._page("entity.html", entity=told)

    async def event(self, request: Request) -> Response:
        """Show what was decided about a transaction, and why."""
        if not self._known(request):
            return _to_login(request)
        text = request.query_params.get("id", "")
        content = None
        if 0 < len(text.encode(errors="replace")) <= MAX_ID_BYTES:
            content = self._service.state.answers([event_key(text)])[0]
        if content is None:
            return self._missing("no answer to this event is kept", 404)
        service, kept = self._service, unpack_answer(content)
        answer = orjson.loads(kept.body)
        rules = service.engine.rules
        config = service.config
        entities = []
        for column, value in zip(config.entities, kept.entities, strict=True):
            told = entity_or_problem(service, column.kind, value)
            role = next(r for r in told["roles"] if r["column"] == column.column)
            entities.append({"column": column.column, "kind": column.kind, "id": value} | role)
        return self._page(
            "event.html",
            kept=kept,
            answer=answer,
            amount=kept.amount / 10**config.decimals,
            scale=figures.score_scale(answer["score"], rules.review_at, rules.block_at),
            rules=rules,
            entities=entities,
            raw=orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode(),
        )

    def _known(self, request: Request) -> bool:
        return self._sessions.find(request.cookies.get(COOKIE, "")) is not None

    def _missing(self, what: str, status: int) -> Response:
        return self._page("missing.html", what=what, status=status)

    def _page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        text = self._templates.get_template(template).render(values)
        return Response(
            text,
            status,
            {"content-security-policy": POLICY},
            media_type="text/html; charset=utf-8",
        )


def _file(name: str) -> Any:
    content, kind = (FOLDER / name).read_bytes(), FILES[name]

    async def send() -> Response:
        headers = {"cache-control": "private, max-age=300"}
        return Response(content, headers=headers, media_type=f"{kind}; charset=utf-8")

    return send


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise Problem(413, "too-large", "the form is too large")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
    return {name: values[0] for name, values in fields.items()}


def _after(target: str | None) -> str:
    """Return where to go after the login: a page of ours, never another site."""
    safe = target is not None and target.startswith("/ui") and "\\" not in target
    return target if safe and target is not None and "//" not in target else "/ui"


def _to_login(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    there = urlencode({"to": f"{request.url.path}{query}"})
    return RedirectResponse(f"/ui/login?{there}", 303)


def _entity_link(entity: str, kind: str) -> str:
    return "/ui/entity?" + urlencode({"kind": kind, "id": entity})


def _event_link(event: str) -> str:
    return "/ui/event?" + urlencode({"id": event})
