"""The routes of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as installed

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.api.app import beside, counted_route, json_response, surround
from connectors.api.metrics import CONTENT_TYPE
from connectors.model_server.repository import PLATFORM
from connectors.model_server.service import INFER, READ, ModelService, reply_to

EXTENSIONS = ["binary_tensor_data"]
GUIDE = "docs/reference/model-server.md"
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"

Render = Callable[[], bytes]


def create_app(service: ModelService, render: Render | None = None) -> Starlette:
    """Return the application around a service.

    Args:
        service: The service.
        render: Metrics of all processes; None: of this one.
    """
    routes = [
        *_operating(service, render or service.metrics.render),
        *_looking(service),
        *_asking(service),
    ]
    app = Starlette(routes=routes, lifespan=beside(service.run))
    app.router.redirect_slashes = False
    tls = bool(service.settings.tls_certificate)
    surround(app, service.gate, service.metrics, tls=tls, reply=reply_to, see=GUIDE)
    return app


def _operating(service: ModelService, render: Render) -> list[Route]:
    async def live(_: Request) -> Response:
        return json_response({"live": True})

    async def ready(_: Request) -> Response:
        return json_response({"ready": not service.stopping}, 503 if service.stopping else 200)

    async def metrics(request: Request) -> Response:
        service.allowed(request, READ)
        return Response(render(), media_type=CONTENT_TYPE)

    return [
        counted_route("/v2/health/live", live),
        counted_route("/v2/health/ready", ready),
        counted_route("/metrics", metrics),
    ]


def _looking(service: ModelService) -> list[Route]:
    repository = service.repository

    async def server(request: Request) -> Response:
        service.allowed(request, INFER, READ)
        said = {"name": "penstock", "version": installed("penstock"), "extensions": EXTENSIONS}
        return json_response(said)

    async def models(request: Request) -> Response:
        service.allowed(request, INFER, READ)
        listed = [
            {"name": name, "versions": repository.versions(name)} for name in repository.names()
        ]
        return json_response({"models": listed, "trouble": repository.troubles()})

    async def model(request: Request) -> Response:
        service.allowed(request, INFER, READ)
        found = repository.find(*_named(request))
        said = {
            "name": found.name,
            "versions": repository.versions(found.name),
            "platform": PLATFORM,
            "inputs": [spec.to_dict() for spec in found.model.inputs.values()],
            "outputs": [spec.to_dict() for spec in found.model.outputs.values()],
            "parameters": {
                "version": found.version,
                "sha256": found.model.digest,
                "batching": found.together,
            },
        }
        return json_response(said)

    async def model_ready(request: Request) -> Response:
        service.allowed(request, INFER, READ)
        found = repository.find(*_named(request))
        return json_response({"name": found.name, "version": found.version, "ready": True})

    both = [(_MODEL, model), (_VERSION, model)]
    ready = [(f"{_MODEL}/ready", model_ready), (f"{_VERSION}/ready", model_ready)]
    pairs = [("/v2", server), ("/v2/models", models), *both, *ready]
    return [counted_route(path, endpoint) for path, endpoint in pairs]


def _asking(service: ModelService) -> list[Route]:
    async def infer(request: Request) -> Response:
        return await service.infer(request, *_named(request))

    return [counted_route(f"{path}/infer", infer, "POST") for path in (_MODEL, _VERSION)]


def _named(request: Request) -> tuple[str, str]:
    given = request.path_params
    return given["name"], given.get("version", "")
