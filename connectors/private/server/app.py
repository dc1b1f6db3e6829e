"""The routes of the scorer's server."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.api.app import (
    beside,
    counted_route,
    json_response,
    read_plain_body,
    surround,
)
from connectors.api.metrics import CONTENT_TYPE
from connectors.api.problem import Problem, too_large
from connectors.api.reply import JSON
from connectors.private.client.messages import ANSWER_TYPE, OVERHEAD, REQUEST_TYPE
from connectors.private.client.registration import MOST_BYTES, REGISTRATION_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.api.tokens import Token
    from connectors.private.server.service import PrivateService

GUIDE = "docs/guides/private-scoring.md"
SCORE, READ = "score", "read"
_BASE = "/v1/encrypted"


def create_app(service: PrivateService) -> Starlette:
    """Return the application around a service."""
    routes = [*_operating(service), *_keys(service), *_models(service)]
    app = Starlette(routes=routes, lifespan=beside(service.run))
    app.router.redirect_slashes = False
    tls = bool(service.settings.tls_certificate)
    surround(app, service.gate, service.metrics, tls=tls, see=GUIDE)
    return app


def _operating(service: PrivateService) -> list[Route]:
    async def live(_: Request) -> Response:
        return json_response({"live": True})

    async def ready(_: Request) -> Response:
        return json_response({"ready": not service.stopping}, 503 if service.stopping else 200)

    async def metrics(request: Request) -> Response:
        _token(service, request, READ)
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    return [
        counted_route("/health/live", live),
        counted_route("/health/ready", ready),
        counted_route("/metrics", metrics),
    ]


def _keys(service: PrivateService) -> list[Route]:
    async def register(request: Request) -> Response:
        token = _token(service, request, SCORE)
        service.gate.spend(token, 1)
        body = await _body(service, request, REGISTRATION_TYPE, MOST_BYTES)
        return json_response(service.register(token, body), 201)

    async def look(request: Request) -> Response:
        return json_response(
            service.look(_token(service, request, SCORE), request.path_params["key"])
        )

    async def revoke(request: Request) -> Response:
        token = _token(service, request, SCORE)
        service.gate.spend(token, 1)
        return json_response(service.revoke(token, request.path_params["key"]))

    return [
        counted_route(f"{_BASE}/keys", register, "POST"),
        counted_route(f"{_BASE}/keys/{{key}}", look),
        counted_route(f"{_BASE}/keys/{{key}}/revoke", revoke, "POST"),
    ]


def _models(service: PrivateService) -> list[Route]:
    async def models(request: Request) -> Response:
        service.gate.spend(_token(service, request, SCORE), 1)
        return json_response({"models": service.listed()})

    async def offer(request: Request) -> Response:
        service.gate.spend(_token(service, request, SCORE), 1)
        found = service.offer(request.path_params["name"])
        return Response(found.to_json(), media_type=JSON)

    async def score(request: Request) -> Response:
        token = _token(service, request, SCORE)
        service.gate.spend(token, 1)
        limit = service.settings.max_body_mib * 2**20 + OVERHEAD
        with _held(service, token, request, limit):
            body = await _body(service, request, REQUEST_TYPE, limit)
            answer = await service.score(token, body, request.is_disconnected)
        return Response(answer, media_type=ANSWER_TYPE)

    return [
        counted_route(f"{_BASE}/models", models),
        counted_route(f"{_BASE}/models/{{name}}", offer),
        counted_route(f"{_BASE}/score", score, "POST"),
    ]


def _token(service: PrivateService, request: Request, scope: str) -> Token:
    sent = request.headers.get("authorization", "").encode("latin-1")
    return service.gate.token(sent, scope)


@contextmanager
def _held(service: PrivateService, token: Token, request: Request, most: int) -> Iterator[None]:
    """Count what a body takes; no tenant may take more than half of the room."""
    sent = request.headers.get("content-length", "")
    size = min(int(sent), most) if sent.isascii() and sent.isdecimal() else most
    room, own = service.settings.bodies_mib * 2**20, service.held.get(token.name, 0)
    if sum(service.held.values()) + size > room or (own and own + size > room / 2):
        service.metrics.shed.add("memory")
        raise Problem(
            503,
            "overloaded",
            f"bodies of {own} bytes of yours are being read and scored",
            "Send it again after a second, and fewer rows at a time",
            headers={"retry-after": "1", "connection": "close"},
        )
    service.held[token.name] = own + size
    try:
        yield
    finally:
        service.held[token.name] -= size


async def _body(service: PrivateService, request: Request, kind: str, limit: int) -> bytes:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise Problem(
            415,
            "wrong-type",
            f"the body is announced as {given[:80]!r}",
            f"Send content-type: {kind}",
            where="content-type",
        )
    refused = too_large(limit, fix="Send fewer rows at a time")
    return await read_plain_body(request, limit, service.settings.read_seconds, refused)
