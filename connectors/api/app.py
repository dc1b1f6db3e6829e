"""The application: routes, their documentation, and what stands around every one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from connectors.api.problem import Problem, failed
from connectors.api.reply import JSON, SECURITY_HEADERS, TLS_HEADER, Reply, reply_to

if TYPE_CHECKING:
    from connectors.api.gate import Gate
    from connectors.api.metrics import RequestMetrics
    from connectors.api.service import Service

logger = logging.getLogger(__name__)

DESCRIPTION = """
Scores card payments, transfers or whatever the dataset config describes: one transaction in, the
probability of fraud, a decision and its reasons out.

Every event id is answered once: sent again, it gets the same bytes and counts no second time.
Errors are problem details (RFC 9457) with what went wrong, where and how to mend it.
"""


def create_app(service: Service) -> FastAPI:
    """Return the application around a service."""
    from connectors.api.routes import add_routes

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.run())
        try:
            yield
        finally:
            service.stopping = True
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(
        title="Penstock fraud API",
        description=DESCRIPTION,
        version=version("penstock"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    add_routes(app, service)
    if service.settings.ui:
        from connectors.api.ui.routes import add_pages

        add_pages(app, service)
    surround(app, service.gate, service.metrics, tls=bool(service.settings.tls_certificate))
    return app


def surround(
    app: Starlette,
    gate: Gate,
    metrics: RequestMetrics,
    *,
    tls: bool,
    reply: Callable[[Problem, str], Reply] = reply_to,
    see: str = "/v1/openapi.json",
) -> None:
    """Put around an application what every one has: problems as answers, and `Surroundings`.

    Args:
        app: The application.
        gate: Gives requests their ids.
        metrics: What is counted.
        tls: Whether it is served over TLS.
        reply: ``(problem, request id) -> answer``.
        see: Where a client finds what there is.
    """

    async def on_problem(request: Request, error: Exception) -> Response:
        problem = _problem_of(request, error, see)
        return as_response(reply(problem, request_id_of(request)))

    for kind in (Problem, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, on_problem)
    app.add_middleware(Surroundings, gate=gate, metrics=metrics, tls=tls, reply=reply)


class Surroundings:
    """Request ids, headers, counts and the last catch around every route."""

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        metrics: RequestMetrics,
        *,
        tls: bool,
        reply: Callable[[Problem, str], Reply] = reply_to,
    ) -> None:
        self._app, self._gate, self._metrics, self._reply = app, gate, metrics, reply
        tls_header = (TLS_HEADER,) if tls else ()
        self._headers = [(n.encode(), v.encode()) for n, v in (*SECURITY_HEADERS, *tls_header)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = next((v for n, v in scope["headers"] if n == b"x-request-id"), b"")
        request_id = self._gate.request_id(sent)
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                there = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *(pair for pair in self._headers if pair[0] not in there),
                ]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            logger.exception("request %s failed", request_id)
            if status:
                raise
            response = as_response(self._reply(failed(), request_id))
            await response(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.add(route, str(status))
            if route != "/ui/live":
                self._metrics.stages.observe("request", perf_counter() - began)


def beside(run: Callable[[], Coroutine[Any, Any, None]]) -> Lifespan[Starlette]:
    """Return a lifespan in which something runs beside the requests until the end."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan


def counted_route(
    path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str = "GET"
) -> Route:
    """Return a route whose requests are counted under its path."""

    async def counted(request: Request) -> Response:
        request.scope["route"] = route  # what the request is counted under
        return await endpoint(request)

    route = Route(path, counted, methods=[method])
    return route


def json_response(said: dict[str, Any], status: int = 200) -> Response:
    """Return JSON data as an answer."""
    return Response(orjson.dumps(said), status, media_type=JSON)


def as_response(reply: Reply) -> Response:
    """Return a reply as Starlette sends it."""
    return Response(reply.body, reply.status, dict(reply.headers), reply.media_type)


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return a body of JSON, refusing one that is too large before it is read whole.

    Raises:
        Problem: 400, 408, 413 or 415.
    """
    from connectors.api.problem import too_large

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            415,
            "not-json",
            f"the body is announced as {kind[:80]!r}",
            "Send content-type: application/json",
            where="content-type",
        )
    return await read_plain_body(request, limit, seconds, too_large(limit))


async def read_plain_body(
    request: Request, limit: int, seconds: float, too_large: Problem
) -> bytes:
    """Return a body of any type, refusing one that is too large before it is read whole.

    Raises:
        Problem: ``too_large``, 408 or 415.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > limit:
        raise too_large
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415, "encoded", "compressed bodies are not read", "Send it plain", where="encoding"
        )
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                parts.append(chunk)
    except TimeoutError:
        raise Problem(
            408,
            "too-slow",
            f"the body took more than {seconds:g} seconds",
            "Send it in one go",
            headers={"connection": "close"},
        ) from None
    return b"".join(parts)


def request_id_of(request: Request) -> str:
    """Return the id the request goes by."""
    return str(request.scope["state"]["request_id"])


def _problem_of(request: Request, error: Exception, see: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        details: list[dict[str, Any]] = list(error.errors())
        first = details[0] if details else {"loc": ("request",), "msg": "invalid"}
        where = ".".join(map(str, first["loc"]))[:200]
        return Problem(422, "invalid-request", str(first["msg"]), "Correct it", where=where)
    status = getattr(error, "status_code", 500)
    codes = {404: "not-found", 405: "method-not-allowed"}
    return Problem(
        status,
        codes.get(status, "http-error"),
        f"{request.method} {request.url.path[:200]}: {getattr(error, 'detail', 'failed')}",
        f"See {see} for what there is",
        headers=dict(getattr(error, "headers", None) or {}),
    )
