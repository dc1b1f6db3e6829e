"""The routes of the central machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from connectors.api.app import as_response, surround
from connectors.api.metrics import CONTENT_TYPE
from connectors.api.problem import Problem
from connectors.api.reply import Reply
from connectors.defects.inspect.central.desk import Decision
from connectors.defects.inspect.central.service import Central, is_key
from connectors.defects.inspect.uplink import DECISIONS_PATH, REVIEW_PATH

PNG = "image/png"


def create_app(central: Central) -> FastAPI:
    """Return the application around a service, which starts and ends with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        central.start()
        try:
            yield
        finally:
            await asyncio.to_thread(central.close)

    app = FastAPI(
        title="Penstock inspection",
        description="Judges images by the central model. Errors are problem details (RFC 9457).",
        version=version("penstock"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _add_inspecting(app, central)
    _add_reviewing(app, central)
    _add_operating(app, central)
    surround(app, central.gate, central.metrics, tls=central.config.tls)
    return app


def _add_inspecting(app: FastAPI, central: Central) -> None:
    takes = {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"image": {"type": "string", "format": "binary"}},
                    }
                },
            },
        }
    }

    @app.post("/v1/inspect", openapi_extra=takes, response_class=Response)
    async def inspect(request: Request) -> Response:
        """Judge one image: verdict, score, kinds, boxes, thresholds, model.

        With ``Accept: image/png`` the heat map is the answer.
        """
        central.allowed(request)
        decision = await central.judged(await central.image_of(request))
        if PNG in request.headers.get("accept", ""):
            return _picture(decision)
        return as_response(Reply(200, json.dumps(decision.opinion).encode()))

    @app.post("/v1/inspect/heatmap", openapi_extra=takes, response_class=Response)
    async def heatmap(request: Request) -> Response:
        """Judge one image and answer with its heat map as PNG, verdict and score in headers."""
        central.allowed(request)
        return _picture(await central.judged(await central.image_of(request)))


def _add_reviewing(app: FastAPI, central: Central) -> None:
    @app.post(REVIEW_PATH, response_class=Response)
    async def review(request: Request) -> Response:
        """Take a doubtful image of an edge, as often as it comes; it is decided once."""
        token = central.allowed(request)
        return as_response(await central.reviewed(token, request))

    @app.post(DECISIONS_PATH, response_class=Response)
    async def decisions(request: Request) -> Response:
        """Answer with the decisions of some images by their keys."""
        central.allowed(request)
        return as_response(await central.decisions(request))

    @app.get("/v1/review/{key}/heatmap", response_class=Response)
    async def heat(request: Request, key: str) -> Response:
        """Return the heat map of a decided image."""
        central.allowed(request)
        found = await run_in_threadpool(central.store.heat, key) if is_key(key) else b""
        if not found:
            raise Problem(404, "not-found", "no heat map of that image", "Ask for a decided one")
        return as_response(Reply(200, found, PNG))


def _add_operating(app: FastAPI, central: Central) -> None:
    @app.get("/healthz", response_class=Response)
    async def health() -> Response:
        """Say that it lives, and whether it decides."""
        lives = central.desk.is_alive()
        return as_response(Reply(200 if lives else 503, json.dumps({"alive": lives}).encode()))

    @app.get("/v1/status", response_class=Response)
    async def status(request: Request) -> Response:
        """Return the model and how many images wait and are decided."""
        central.allowed(request)
        counts: dict[str, Any] = await run_in_threadpool(central.store.counts)
        said = counts | {"model": central.desk.inspector.digest}
        return as_response(Reply(200, json.dumps(said).encode()))

    @app.get("/metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        """Return counters in the text format of Prometheus."""
        central.allowed(request)
        return Response(central.metrics.render(), media_type=CONTENT_TYPE)


def _picture(decision: Decision) -> Response:
    opinion = decision.opinion
    headers = (
        ("x-penstock-verdict", str(opinion["verdict"])),
        ("x-penstock-score", repr(opinion["score"])),
        ("x-penstock-model", str(opinion["model"])),
    )
    return as_response(Reply(200, decision.heat, PNG, headers))
