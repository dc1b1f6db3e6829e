"""What the model server does with a request, and what it consists of."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.responses import Response

from connectors.api.app import read_plain_body, request_id_of
from connectors.api.gate import Gate
from connectors.api.load_control import LoadControl, LoadLimits
from connectors.api.problem import Problem, too_large
from connectors.api.rate_limit import RateLimiter
from connectors.api.reply import JSON, Reply
from connectors.api.server_settings import TOKENS
from connectors.api.tokens import read_tokens
from connectors.model_server.addresses import parse_addresses
from connectors.model_server.messages import (
    BINARY,
    HEADER_LENGTH,
    InferRequest,
    pack,
    parse_request,
)
from connectors.model_server.metrics import ModelMetrics
from connectors.model_server.onnx_model import RunError
from connectors.model_server.repository import Repository, Version
from connectors.model_server.settings import ModelServerSettings
from connectors.model_server.sources import open_source
from connectors.model_server.tensors import Array, TensorError
from infra.environment import service_environment
from infra.errors import ConfigurationError
from infra.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from connectors.api.tokens import Token

MIB = 2**20
INFER, READ = "score", "read"
"""Scopes of tokens: to ask models, and to look at them (either will do) and at metrics."""


def reply_to(problem: Problem, request_id: str) -> Reply:
    """Return a problem as the protocol has errors, with what the house adds."""
    import orjson

    said = problem.document(request_id)
    kept = {key: said[key] for key in ("code", "where", "request_id") if key in said}
    text = f"{problem.what}. {problem.fix}" if problem.fix else problem.what
    body = orjson.dumps({"error": text, **kept})
    return Reply(problem.status, body, JSON, tuple(problem.headers.items()))


@dataclass(slots=True)
class ModelService:
    """A running server.

    Attributes:
        settings: Its settings.
        metrics: What it counts.
        gate: Who may pass.
        repository: The models.
        executor: Threads that run them.
        stopping: Whether it ends.
        held: Bytes of bodies being read or answered.
    """

    settings: ModelServerSettings
    metrics: ModelMetrics
    gate: Gate
    repository: Repository
    executor: ThreadPoolExecutor
    stopping: bool = False
    held: int = 0

    def allowed(self, request: Request, *scopes: str) -> Token:
        """Return the token of a request that covers one of some scopes.

        Raises:
            Problem: 401 or 403.
        """
        sent = request.headers.get("authorization", "").encode("latin-1")
        for scope in scopes[1:]:
            try:
                return self.gate.token(sent, scope)
            except Problem as problem:
                if problem.status != 403:
                    raise
        return self.gate.token(sent, scopes[0])

    async def run(self) -> None:
        """Do what goes on beside requests; runs until it is cancelled."""
        self.gate.load.start(asyncio.get_running_loop())
        try:
            if self.settings.reload_seconds:
                await self.repository.follow(self.settings.reload_seconds)
            await asyncio.Event().wait()
        finally:
            self.gate.load.stop()

    async def infer(self, request: Request, name: str, version: str) -> Response:
        """Answer with what a model says.

        Raises:
            Problem: 4xx or 503.
        """
        self._spend(self.allowed(request, INFER))
        self.gate.admit()
        found = self.repository.find(name, version)
        began = perf_counter()
        outcome = "failed"
        size = _announced(request, self.settings.max_body_mib * MIB)
        self._hold(size)
        try:
            found.batcher.admit()
            body = await self._body(request)
            response = await self._answer(request, found, body)
        except Problem as problem:
            outcome = "shed" if problem.status == 503 else "refused"
            if problem.status == 503:
                self.metrics.shed.add("queue")
            raise
        else:
            outcome = "ok"
            return response
        finally:
            self.held -= size
            self.metrics.inferences.add(*found.labels, outcome)
            self.metrics.latency.observe(found.labels, perf_counter() - began)

    def close(self) -> None:
        """Let threads end."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _spend(self, token: Token) -> None:
        try:
            self.gate.spend(token, 1)
        except Problem as problem:
            problem.what = "this token sends more requests than its rate allows"
            problem.fix = "Wait as long as Retry-After says, or ask for a higher rate"
            raise

    def _hold(self, size: int) -> None:
        if self.held + size > self.settings.bodies_mib * MIB:
            self.metrics.shed.add("memory")
            raise Problem(
                503,
                "overloaded",
                f"bodies of {self.held} bytes are being read and answered",
                "Send it again after a second, and spread the load",
                headers={"retry-after": "1", "connection": "close"},
            )
        self.held += size

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind not in {JSON, BINARY}:
            raise Problem(
                415,
                "not-json",
                f"the body is announced as {kind[:80]!r}",
                f"Send content-type: {JSON}, or {BINARY} with {HEADER_LENGTH}",
                where="content-type",
            )
        limit = self.settings.max_body_mib * MIB
        refused = too_large(limit, fix="Send fewer rows at a time, or binary tensors")
        return await read_plain_body(request, limit, self.settings.read_seconds, refused)

    async def _answer(self, request: Request, found: Version, body: bytes) -> Response:
        began = perf_counter()
        asked = _parsed(request, found, body, self.settings)
        self.gate.load.spend(perf_counter() - began)
        try:
            outputs = await found.batcher.run(asked.inputs, asked.outputs)
        except RunError as error:
            raise Problem(
                422, "not-run", f"the model does not run on these values ({error})", "Correct them"
            ) from error
        began = perf_counter()
        response = _response(found, asked, outputs, request_id_of(request))
        self.gate.load.spend(perf_counter() - began)
        return response


def build_service(settings: ModelServerSettings) -> ModelService:
    """Open everything and load the models.

    Raises:
        PenstockError: Something is missing or cannot be used; the message names the remedy.
    """
    tokens = read_tokens(os.environ.get(TOKENS, ""), settings.tokens_file)
    if not tokens:
        raise ConfigurationError(
            "the model server has no tokens, so nobody could use it",
            f"Set {TOKENS} to NAME:score+read:SECRET, or {settings.model_config['env_prefix']}"
            "TOKENS_FILE",
        )
    uri = settings.tracking_uri
    addresses = parse_addresses(settings.serve)
    if not uri and "MLFLOW_TRACKING_URI" not in os.environ and any(not a.path for a in addresses):
        uri = service_environment(get_settings())["MLFLOW_TRACKING_URI"]  # of `penstock up`
    metrics = ModelMetrics()
    load = LoadControl(LoadLimits(settings.budget_ms / 1000))
    gate = Gate(tokens, RateLimiter(settings.rate, settings.burst), load, metrics)
    executor = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="penstock-model")
    repository = Repository(
        [open_source(address, uri) for address in addresses],
        settings.batches,
        metrics,
        executor,
        threads=settings.threads,
        concurrency=settings.concurrency,
    )
    repository.start()
    return ModelService(settings, metrics, gate, repository, executor)


def _announced(request: Request, most: int) -> int:
    """Return how many bytes of memory a body may take; too large ones are refused as they come."""
    sent = request.headers.get("content-length", "")
    return min(int(sent), most) if sent.isascii() and sent.isdecimal() else most


def _parsed(
    request: Request, found: Version, body: bytes, settings: ModelServerSettings
) -> InferRequest:
    try:
        asked = parse_request(body, request.headers.get(HEADER_LENGTH, ""), settings.limits)
    except TensorError as error:
        raise Problem(400, "malformed", str(error), "Correct the request") from error
    try:
        found.model.check(asked.inputs, asked.outputs)
    except TensorError as error:
        raise Problem(422, "does-not-fit", str(error), f"See /v2/models/{found.name}") from error
    return asked


def _response(
    found: Version, asked: InferRequest, outputs: Mapping[str, Array], request_id: str
) -> Response:
    document = {
        "model_name": found.name,
        "model_version": found.version,
        "id": asked.id or request_id,
    }
    body, length = pack(document, "outputs", outputs, asked.binary)
    headers = {HEADER_LENGTH: length} if length else None
    return Response(body, 200, headers, BINARY if length else JSON)
