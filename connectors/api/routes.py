"""The routes of version 1 and those for operators, each with its documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response

from connectors.api import schema
from connectors.api.app import as_response, read_body, request_id_of
from connectors.api.entity_view import describe_entity
from connectors.api.metrics import CONTENT_TYPE
from connectors.api.modes import now_ms
from connectors.api.problem import MEDIA_TYPE, Problem
from connectors.api.reply import JSON
from connectors.api.rules import Rules, RulesError
from connectors.api.served_model import ModelError
from infra.errors import PenstockError

if TYPE_CHECKING:
    from connectors.api.service import Service
    from connectors.api.tokens import Token

_TEXTS = {
    400: "The body is no JSON.",
    401: "No token, or an unknown one.",
    403: "The token lacks the scope.",
    404: "There is no such thing.",
    408: "The body took too long.",
    409: "The id was used before for something else.",
    413: "Too large.",
    415: "Not JSON.",
    422: "A value breaks a rule; `code` names it.",
    429: "The token's rate is used up; see Retry-After.",
    500: "A failure here.",
    503: "Overloaded, or not kept; see Retry-After.",
}
_READ = (401, 403, 429, 500, 503)
_SEND = (400, 401, 403, 408, 413, 415, 422, 429, 500, 503)
MAX_RULES_BYTES = 64 * 2**20


def add_routes(app: FastAPI, service: Service) -> None:
    """Add every route but the pages."""
    _add_sending(app, service)
    _add_explaining(app, service)
    _add_reading(app, service)
    _add_admin(app, service)
    _add_operating(app, service)
    _document(app)


def allowed(service: Service, request: Request, scope: str) -> Token:
    """Return the token of a request.

    Raises:
        Problem: 401 or 403.
    """
    return service.gate.token(request.headers.get("authorization", "").encode("latin-1"), scope)


def _add_sending(app: FastAPI, service: Service) -> None:
    settings, config, now = service.settings, service.config, now_ms()

    @app.post(
        "/v1/score",
        summary="Score one transaction or a batch",
        tags=["scoring"],
        responses=_answers(schema.SCORE_ANSWER, (*_SEND, 409)),
        openapi_extra=_takes(schema.score_schema(config, now, settings.max_batch), "score"),
        response_class=Response,
    )
    async def score(request: Request) -> Response:
        """Answer with probability, decision and reasons, and count the transaction.

        A batch is answered in order; an item that breaks a rule gets a problem in its place.
        """
        token = allowed(service, request, "score")
        service.gate.admit()
        body = await read_body(request, settings.max_batch_bytes, settings.read_seconds)
        return as_response(await service.scoring.later(token, body, request_id_of(request)))

    @app.post(
        "/v1/labels",
        summary="Tell what became of a transaction",
        tags=["scoring"],
        responses=_answers(schema.LABEL_ANSWER, (*_SEND, 404, 409)),
        openapi_extra=_takes(schema.label_schema(config, now, settings.max_batch), "label"),
        response_class=Response,
    )
    async def label(request: Request) -> Response:
        """Take a label, or a batch of them; the first one of an event counts.

        Time and entities may be left out if the transaction was scored here. A label counts from
        the time it became known, but not before the delay of the dataset config.
        """
        token = allowed(service, request, "label")
        service.gate.spend(token, 1)
        body = await read_body(request, settings.max_batch_bytes, settings.read_seconds)
        return _json(service.labels.take(body))


def _add_explaining(app: FastAPI, service: Service) -> None:
    settings, config = service.settings, service.config

    @app.post(
        "/v1/explain",
        summary="Explain a score wholly, without counting the transaction",
        tags=["reading"],
        responses=_answers(schema.EXPLANATION, (*_SEND, 404, 409)),
        openapi_extra=_takes(schema.explain_schema(config, now_ms()), "read"),
        response_class=Response,
    )
    async def explain(request: Request) -> Response:
        """Return what every group of features adds to the score, with its error.

        A body that holds nothing but the event id asks why a past decision was made, as long as its
        answer is kept and its model is in service.
        """
        token = allowed(service, request, "read")
        body = await read_body(request, settings.max_body_bytes, settings.read_seconds)
        return _json(await service.explaining.answer(token, body, request_id_of(request)))


def _add_reading(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/entities/{kind}/{entity:path}",
        summary="Explain the state of an entity",
        tags=["reading"],
        responses=_answers(schema.OBJECT, (*_READ, 404, 422)),
        openapi_extra=_needs("read"),
        response_class=Response,
    )
    async def entity(request: Request, kind: str, entity: str) -> Response:
        """Return windows, labels, mailbox and newest events of an entity, also in words."""
        service.gate.spend(allowed(service, request, "read"), 1)
        return _json(entity_or_problem(service, kind, entity))

    @app.get(
        "/v1/model",
        summary="Models in service",
        tags=["reading"],
        responses=_answers(schema.OBJECT, _READ),
        openapi_extra=_needs("read"),
        response_class=Response,
    )
    async def model(request: Request) -> Response:
        """Return champion, challenger and how they compare on the same requests."""
        allowed(service, request, "read")
        return _json(service.models.describe())

    @app.get(
        "/v1/rules",
        summary="Rules in force",
        tags=["reading"],
        responses=_answers(schema.RULES, _READ),
        openapi_extra=_needs("read"),
        response_class=Response,
    )
    async def rules(request: Request) -> Response:
        """Return thresholds and block lists."""
        allowed(service, request, "read")
        return _json(service.engine.rules.to_dict())


def _add_admin(app: FastAPI, service: Service) -> None:
    @app.put(
        "/v1/rules",
        summary="Put rules in force",
        tags=["administration"],
        responses=_answers(schema.RULES, _SEND),
        openapi_extra=_takes(schema.RULES, "admin"),
        response_class=Response,
    )
    async def put_rules(request: Request) -> Response:
        """Replace thresholds and block lists, from the next transaction on."""
        allowed(service, request, "admin")
        body = await read_body(request, MAX_RULES_BYTES, service.settings.read_seconds)
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Problem(400, "not-json", f"the body is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise Problem(422, "not-an-object", "the body is no JSON object", "Send one object")
        try:
            rules = Rules.from_dict(data, tuple(service.config.kinds))
        except RulesError as error:
            raise Problem(422, "invalid-rules", error.what, error.fix) from error
        try:
            service.set_rules(rules)
        except (OSError, PenstockError) as error:
            raise Problem(
                503, "not-kept", "the rules could not be kept", "Free disk space"
            ) from error
        return _json(rules.to_dict())

    @app.post(
        "/v1/model/reload",
        summary="Load models anew",
        tags=["administration"],
        responses=_answers(schema.OBJECT, (*_READ, 409)),
        openapi_extra=_needs("admin"),
        response_class=Response,
    )
    async def reload(request: Request) -> Response:
        """Take over new models without dropping a request; a broken one leaves the old in place."""
        allowed(service, request, "admin")
        try:
            changed = await service.models.reload()
        except ModelError as error:
            raise Problem(409, "model-refused", error.what, error.fix) from error
        return _json({"changed": changed, **service.models.describe()})


def _add_operating(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health/live",
        summary="Whether the process answers",
        tags=["operation"],
        responses=_answers(schema.OBJECT, (500,)),
        response_class=Response,
    )
    async def live() -> Response:
        """Return at once."""
        return _json({"status": "live"})

    @app.get(
        "/health/ready",
        summary="Whether requests should be sent here",
        tags=["operation"],
        responses=_answers(schema.OBJECT, (500, 503)),
        response_class=Response,
    )
    async def ready() -> Response:
        """Return 200 when model and store answer, else 503 with the reason."""
        trouble = readiness(service)
        if trouble:
            raise Problem(503, "not-ready", trouble, headers={"retry-after": "1"})
        return _json({"status": "ready", "model": service.engine.model.bundle.digest[:16]})

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        tags=["operation"],
        responses={200: {"description": "Exposition.", "content": {"text/plain": {}}}},
        response_class=Response,
    )
    async def metrics() -> Response:
        """Return every counter; no entity and no event is named."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def entity_or_problem(service: Service, kind: str, entity: str) -> dict[str, Any]:
    """Return an entity's state in words.

    Raises:
        Problem: There is no such kind, or the entity was never seen.
    """
    if kind not in service.config.kinds:
        kinds = ", ".join(sorted(service.config.kinds))
        raise Problem(404, "unknown-kind", "there is no such kind", f"Choose from {kinds}")
    try:
        told = describe_entity(service.state, service.config, kind, entity, now_ms())
    except (PenstockError, UnicodeEncodeError) as error:
        raise Problem(422, "invalid-id", f"the id cannot be read: {error}"[:300]) from error
    if told is None:
        raise Problem(404, "unknown-entity", f"no {kind} of this id was ever seen")
    return told


def readiness(service: Service) -> str:
    """Return why requests should go elsewhere, empty when they should not."""
    if service.stopping:
        return "the process is stopping"
    try:
        service.state.answers([0])
    except PenstockError as error:
        return error.what
    return ""


def _json(data: Any) -> Response:
    return Response(orjson.dumps(data), media_type=JSON)


def _needs(scope: str) -> dict[str, Any]:
    return {"security": [{"token": []}], "x-scope": scope}


def _takes(body: schema.Schema, scope: str) -> dict[str, Any]:
    content = {JSON: {"schema": body}}
    return {**_needs(scope), "requestBody": {"required": True, "content": content}}


def _answers(good: schema.Schema, problems: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        200: {"description": "Done.", "content": {JSON: {"schema": good}}},
        **{
            status: {
                "description": _TEXTS[status],
                "content": {MEDIA_TYPE: {"schema": reference}},
            }
            for status in sorted(problems)
        },
    }


def _document(app: FastAPI) -> None:
    """Complete the OpenAPI document by what FastAPI cannot see."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = schema.PROBLEM
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents
