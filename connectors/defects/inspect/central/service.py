"""The central machine as an HTTP service: single images at once, reviews of the edges in turn."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from connectors.api.app import read_body, read_plain_body
from connectors.api.gate import Gate
from connectors.api.journal import JournalError
from connectors.api.load_control import LoadControl, LoadLimits
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem, overloaded, too_large
from connectors.api.rate_limit import RateLimiter
from connectors.api.reply import Reply
from connectors.api.tokens import Token, TokenBook
from connectors.defects.inspect.central.desk import Decision, Desk
from connectors.defects.inspect.central.multipart import file_of_form
from connectors.defects.inspect.central.store import ReviewStore
from connectors.defects.inspect.inspector import Decoder, Inspector
from connectors.defects.inspect.retention import KEEP_DAYS, check_days
from connectors.defects.inspect.review_queue import QueueLimits
from connectors.defects.inspect.uplink import (
    ASKED_AT_ONCE,
    EDGE_HEADER,
    KEY_HEADER,
    MAX_EDGE,
    NAME_HEADER,
)
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.sandbox import Sandbox

SCOPE = "score"
_KEY = re.compile(r"[0-9a-f]{64}")
MAX_ASK_BYTES = ASKED_AT_ONCE * 80 + 1_024


@dataclass(frozen=True, slots=True)
class CentralConfig:
    """What the service takes.

    Attributes:
        max_image_bytes: Largest file; 64 KiB more are allowed for the form around it.
        at_once: Single images that may wait for the model; more are turned away.
        read_seconds: Time a body may take to arrive.
        rate: Requests per second and token.
        burst: Requests that a rested token may send at once.
        queue: Bounds of what waits to be decided.
        tls: Whether it is reached by https.
        keep_days: For so long decisions are kept; 0 for good.
    """

    max_image_bytes: int = 64 * 2**20
    at_once: int = 8
    read_seconds: float = 30.0
    rate: float = 200.0
    burst: float = 1_000.0
    queue: QueueLimits = field(default_factory=QueueLimits)
    tls: bool = False
    keep_days: float = KEEP_DAYS

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.max_image_bytes, self.at_once, self.read_seconds, self.rate, self.burst) <= 0:
            raise ValueError(f"{self}: every bound must be positive")
        check_days(self.keep_days)


class Central:
    """The service: its store, its desk, and who may ask."""

    def __init__(
        self,
        inspector: Inspector,
        home: Path,
        tokens: TokenBook,
        config: CentralConfig,
        *,
        decoder: Decoder | None = None,
    ) -> None:
        """Open the store; `start` begins to decide what waits.

        Args:
            inspector: The model.
            home: Folder of its state.
            tokens: Of edges and other clients; scope ``score``.
            config: Bounds.
            decoder: Decodes images; a sandbox that is closed with the service if None.

        Raises:
            JournalError: The store cannot be opened, or another process has it.
        """
        self.config = config
        self.metrics = Metrics()
        self.gate = Gate(
            tokens,
            RateLimiter(config.rate, config.burst),
            LoadControl(LoadLimits(1.0)),
            self.metrics,
        )
        self.store = ReviewStore(home / "central.db", config.queue)
        self._sandbox = Sandbox(ImageLimits(max_bytes=config.max_image_bytes), workers=2)
        self.desk = Desk(inspector, decoder or self._sandbox, self.store, config.keep_days)
        self._waiting = 0

    def start(self) -> None:
        """Begin to decide what waits.

        Only once the application stands: FastAPI shuts warnings off while it builds routes, which
        Python does for the whole process, and a decoder at work on another thread does so, too.
        """
        self.desk.start()

    def close(self) -> None:
        """Finish the image at hand; what waits stays for the next start."""
        self.desk.end()
        self._sandbox.close()
        self.store.close()

    def allowed(self, request: Request) -> Token:
        """Return the token of a request, its rate taken.

        Raises:
            Problem: 401, 403 or 429.
        """
        sent = request.headers.get("authorization", "").encode("latin-1")
        token = self.gate.token(sent, SCOPE)
        self.gate.spend(token, 1)
        return token

    async def image_of(self, request: Request) -> bytes:
        """Return the bytes of the image that a request carries, by form or as its body.

        Raises:
            Problem: 400, 408, 413, 415 or 422.
        """
        limit = self.config.max_image_bytes
        kind = request.headers.get("content-type", "")
        form = kind.lower().startswith("multipart/")
        refusal = too_large(limit, fix="Send a smaller image, or raise --max-image-mib")
        body = await read_plain_body(
            request, limit + (65_536 if form else 0), self.config.read_seconds, refusal
        )
        content = file_of_form(kind, body) if form else body
        if len(content) > limit:
            raise refusal
        if not content:
            raise Problem(422, "no-image", "the request holds no image", "Send one", where="body")
        return content

    async def judged(self, content: bytes) -> Decision:
        """Judge a single image now.

        Raises:
            Problem: 422 for what is no image, 503 where too many wait.
        """
        if self._waiting >= self.config.at_once:
            self.metrics.shed.add("load")
            raise overloaded()
        self._waiting += 1
        try:
            return await run_in_threadpool(self.desk.judge, content)
        except ImageRefusedError as error:
            self.metrics.refused.add(error.rule)
            raise Problem(
                422, error.rule, error.observed, f"Send an image: {error.expected}", where="image"
            ) from error
        finally:
            self._waiting -= 1

    async def reviewed(self, token: Token, request: Request) -> Reply:
        """Keep an image of an edge; answers 200 with the decision where there is one, else 202.

        Raises:
            Problem: 400, 408, 413, 415, 422, or 503 where it could not be kept.
        """
        key = request.headers.get(KEY_HEADER, "")
        edge = request.headers.get(EDGE_HEADER, "{}")
        name = unquote(request.headers.get(NAME_HEADER, ""))[:1_024]
        if not is_key(key):
            raise _bad_header(KEY_HEADER, "it is no SHA-256 in hexadecimal")
        if len(edge) > MAX_EDGE or not _is_object(edge):
            raise _bad_header(EDGE_HEADER, f"it is no JSON object of {MAX_EDGE} bytes at most")
        content = await self.image_of(request)
        if hashlib.sha256(content).hexdigest() != key:
            raise _bad_header(KEY_HEADER, "it is not the SHA-256 of the image that came with it")
        try:
            kept = await run_in_threadpool(
                self.store.take, key, content, line=token.name, name=name, edge=edge
            )
        except JournalError as error:
            raise _not_now("not-kept", str(error)) from error
        if not kept:
            raise _not_now("queue-full", "too many images wait to be decided")
        self.desk.wake()
        decided, _, _ = await run_in_threadpool(self.store.decisions, [key])
        if decided:
            return Reply(200, json.dumps({"key": key, "decision": decided[key]}).encode())
        return Reply(202, json.dumps({"key": key}).encode())

    async def decisions(self, request: Request) -> Reply:
        """Answer which of some images are decided, which wait, which are not known here.

        Raises:
            Problem: 400 for what is no list of keys, and as `read_body`.
        """
        body = await read_body(request, MAX_ASK_BYTES, self.config.read_seconds)
        try:
            keys = json.loads(body)["keys"]
        except (ValueError, KeyError, TypeError, RecursionError):
            keys = None
        if (
            not isinstance(keys, list)
            or len(keys) > ASKED_AT_ONCE
            or not all(isinstance(key, str) and is_key(key) for key in keys)
        ):
            raise Problem(
                400,
                "no-keys",
                "the body is no list of keys",
                f'Send {{"keys": [SHA-256, ...]}} of {ASKED_AT_ONCE} at most',
                where="keys",
            )
        decided, waiting, unknown = await run_in_threadpool(self.store.decisions, keys)
        said = {"decided": decided, "waiting": waiting, "unknown": unknown}
        return Reply(200, json.dumps(said).encode())


def is_key(text: str) -> bool:
    """Tell whether a text is a SHA-256 in hexadecimal."""
    return _KEY.fullmatch(text) is not None


def _bad_header(name: str, why: str) -> Problem:
    return Problem(422, "bad-header", f"header {name}: {why}", "Correct it", where=name)


def _not_now(code: str, what: str) -> Problem:
    return Problem(503, code, what, "It is sent again by itself", headers={"retry-after": "5"})


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
