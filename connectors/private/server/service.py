"""What the server does with a request: every check in its order, then the ciphertexts.

Nothing is computed, and nobody learns more than a reason, before token, form, key, signature, time,
model, length and body have been found right.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, BinaryIO

from connectors.api.problem import Problem, too_many
from connectors.private.bundle import ServedModel
from connectors.private.client.documents import VERSION, DocumentError, sha256
from connectors.private.client.messages import (
    AnswerHeader,
    Message,
    RequestHeader,
    read_message,
    write_message,
)
from connectors.private.server.key_registry import KeyEntry, KeyRefusedError
from connectors.private.server.pool import BusyError, GoneError, ScoringError, never_gone
from connectors.private.server.replay import ReplayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from connectors.api.gate import Gate
    from connectors.api.rate_limit import RateLimiter
    from connectors.api.tokens import Token
    from connectors.private.client.offer import Offer
    from connectors.private.server.audit import AuditLog
    from connectors.private.server.key_registry import KeyRegistry
    from connectors.private.server.metrics import PrivateMetrics
    from connectors.private.server.pool import Pool
    from connectors.private.server.replay import ReplayWindow
    from connectors.private.server.settings import PrivateSettings
    from tasks.privacy.plan import Packing

SYNC_SECONDS = 1.0


@dataclass(slots=True)
class PrivateService:
    """A running server.

    Attributes:
        settings: Its settings.
        metrics: What it counts.
        gate: Who may pass.
        keys: Registered keys.
        window: Requests seen.
        audit: The log.
        pool: Processes that score.
        models: Digest -> model.
        limiter: Rows per key.
        signing: Key that answers are signed with.
        lock: Keeps other servers out of this one's home.
        stopping: Whether it ends.
        held: Tenant -> bytes of its bodies that are being read or scored.
    """

    settings: PrivateSettings
    metrics: PrivateMetrics
    gate: Gate
    keys: KeyRegistry
    window: ReplayWindow
    audit: AuditLog
    pool: Pool
    models: dict[str, ServedModel]
    limiter: RateLimiter
    signing: Ed25519PrivateKey
    lock: BinaryIO
    stopping: bool = False
    held: dict[str, int] = field(default_factory=dict)

    @property
    def public(self) -> str:
        """Key that answers are verified with, hexadecimal."""
        return self.signing.public_key().public_bytes_raw().hex()

    def offer(self, name: str) -> Offer:
        """Return the offer of a model, with the key that its answers are signed with.

        Raises:
            Problem: 404.
        """
        for model in self.models.values():
            if model.offer.name == name:
                return replace(model.offer, scorer=self.public)
        raise Problem(
            404,
            "unknown-model",
            f"there is no model {name[:64]!r} here",
            "See /v1/encrypted/models",
            where="name",
        )

    def listed(self) -> list[dict[str, Any]]:
        """Return what is served, as JSON data."""
        most = self.settings.max_body_mib * 2**20
        return [
            {
                "name": model.offer.name,
                "digest": digest,
                "parameters": model.plan.parameters.name,
                "security_bits": model.plan.parameters.security_bits,
                "inputs": model.plan.inputs,
                "scores": model.plan.scores,
                "power": model.plan.power,
                "shareable": model.offer.flooding > 0,
                "max_rows": min(self.settings.max_rows, model.plan.rows_within(most)),
            }
            for digest, model in self.models.items()
        ]

    def register(self, token: Token, content: bytes) -> dict[str, Any]:
        """Register a key; returns what was noted.

        Raises:
            Problem: 422.
        """
        try:
            entry = self.keys.register(content, token.name, time.time())
        except KeyRefusedError as error:
            self.audit.note("key-refused", tenant=token.name, verdict=error.code, at=_now())
            raise Problem(422, error.code, str(error), "Correct the registration") from None
        key_id = entry.registration.key_id
        self.audit.note("key-registered", tenant=token.name, key=key_id, at=_now())
        return described(entry)

    def revoke(self, token: Token, key_id: str) -> dict[str, Any]:
        """End a key of the token's own tenant, or any with scope ``admin``.

        Raises:
            Problem: 404.
        """
        entry = self.keys.look(key_id)
        if entry is None or not _may(token, entry):
            raise unknown_key()
        entry = self.keys.revoke(key_id, time.time())
        self.audit.note("key-revoked", tenant=token.name, key=key_id, at=_now())
        return described(entry)

    def look(self, token: Token, key_id: str) -> dict[str, Any]:
        """Return what is known of a key.

        Raises:
            Problem: 404, also for keys of others.
        """
        entry = self.keys.look(key_id)
        if entry is None or not _may(token, entry):
            raise unknown_key()
        return described(entry)

    async def score(
        self, token: Token, content: bytes, gone: Callable[[], Awaitable[bool]] = never_gone
    ) -> bytes:
        """Return the signed answer to a signed request.

        Args:
            token: Whose request it is.
            content: The request.
            gone: Whether the client has gone.

        Raises:
            Problem: 4xx or 503, after the log has its line.
        """
        began = perf_counter()
        facts: dict[str, Any] = {"tenant": token.name, "at": _now(), "bytes": len(content)}
        try:
            message, model = self._checked(token, content, facts)
            await self._admitted(message)
            self.metrics.stages.observe("check", perf_counter() - began)
            answer = await self._computed(message, model, gone)
            self._key(token, message.header, time.time())  # it may have been revoked meanwhile
        except Problem as problem:
            self.metrics.verdicts.add(problem.code)
            self.audit.note("refused", verdict=problem.code, **facts)
            raise
        except BaseException:
            self.audit.note("refused", verdict="broken-off", **facts)
            raise
        began = perf_counter()
        receipt = self.audit.note("scored", verdict="scored", answer=sha256(answer), **facts)
        header = AnswerHeader(
            version=VERSION,
            request=message.digest,
            model=model.plan.digest,
            key=message.header.key,
            rows=message.header.rows,
            time=_now(),
            audit=receipt,
            body_bytes=len(answer),
            body=sha256(answer),
        )
        signed = write_message(header, answer, self.signing)
        self.metrics.verdicts.add("scored")
        self.metrics.rows.add(model.offer.name, by=message.header.rows)
        self.metrics.stages.observe("answer", perf_counter() - began)
        return signed

    async def run(self) -> None:
        """Do what goes on beside requests; runs until it is cancelled."""
        self.gate.load.start(asyncio.get_running_loop())
        try:
            while True:
                await asyncio.sleep(SYNC_SECONDS)
                await asyncio.to_thread(self.audit.sync)
        finally:
            self.gate.load.stop()

    def close(self) -> None:
        """End the log and leave the home to others."""
        self.audit.close()
        self.lock.close()

    def _checked(
        self, token: Token, content: bytes, facts: dict[str, Any]
    ) -> tuple[Message[RequestHeader], ServedModel]:
        """Return a request that may be computed; notes what is known of it in ``facts``."""
        now = time.time()
        try:
            message = read_message(RequestHeader, content)
        except DocumentError as error:
            raise Problem(400, "malformed", str(error), "Correct the request") from None
        header = message.header
        facts |= {"key": header.key, "model": header.model, "rows": header.rows}
        facts["request"] = message.digest
        entry = self._key(token, header, now)
        try:
            message.check_signature(entry.registration.public)
        except DocumentError as error:
            raise Problem(
                401, "wrong-signature", str(error), "Sign with the registered key"
            ) from None
        model = self._model(header, entry)
        self._fits(header, model)
        return message, model

    async def _admitted(self, message: Message[RequestHeader]) -> None:
        """Let a request pass whose body is the one that was signed, once."""
        header = message.header
        if (early := self.window.opens - time.time()) > 0:
            raise Problem(
                503,
                "just-started",
                "the server has just started, and requests made before it are not taken",
                "Make a new request later",
                headers={"retry-after": str(math.ceil(early))},
            )
        try:
            await asyncio.to_thread(message.check_body)  # a quarter of a gigabyte takes a while
            self.window.take(header.key, header.nonce, header.time / 1000, time.time())
        except DocumentError as error:
            raise Problem(400, "changed-body", str(error), "Send it again") from None
        except ReplayError as error:
            raise Problem(409, "replayed", str(error), "Make a new request") from None
        seconds = self.limiter.take(header.key, header.rows, time.monotonic())
        if seconds > 0:
            self.metrics.shed.add("rate")
            problem = too_many(seconds)
            problem.what = "this key sends more rows than its rate allows"
            raise problem

    def _key(self, token: Token, header: RequestHeader, now: float) -> KeyEntry:
        if header.tenant != token.name:
            raise Problem(
                403,
                "other-tenant",
                f"the request names tenant {header.tenant!r}, the token is of {token.name!r}",
                "Send it with the token of its tenant",
                where="tenant",
            )
        known = self.keys.look(header.key)
        if known is None or known.registration.tenant != token.name:
            raise Problem(
                401, "unknown-key", "this key is not registered here", "Register it", where="key"
            )
        try:
            return self.keys.find(header.key, now)
        except KeyRefusedError as error:
            raise Problem(401, error.code, str(error), "Register a key", where="key") from None

    def _model(self, header: RequestHeader, entry: KeyEntry) -> ServedModel:
        model = self.models.get(header.model)
        if model is None:
            raise Problem(
                404,
                "unknown-model",
                "no model with this digest is served here",
                "Fetch its offer again: the model may have been replaced",
                where="model",
            )
        name = model.plan.parameters.name
        if header.parameters != name or entry.registration.parameters != name:
            raise Problem(
                422,
                "other-parameters",
                f"the model is of parameter set {name}, request or key of another",
                "Make a key for this model",
                where="parameters",
            )
        return model

    def _fits(self, header: RequestHeader, model: ServedModel) -> None:
        packing, rows = _packing(header, model), header.rows
        if not 1 <= rows <= self.settings.max_rows:
            raise Problem(
                422,
                "too-many-rows",
                f"{rows} rows; a request has 1 to {self.settings.max_rows}",
                "Send several requests",
                where="rows",
            )
        expected = model.plan.request_bytes(packing, rows)
        if header.body_bytes != expected:
            raise Problem(
                422,
                "wrong-length",
                f"{rows} rows in packing {packing!r} take {expected} bytes, not"
                f" {header.body_bytes}",
                "Encrypt them again",
                where="body_bytes",
            )

    async def _computed(
        self,
        message: Message[RequestHeader],
        model: ServedModel,
        gone: Callable[[], Awaitable[bool]],
    ) -> bytes:
        began = perf_counter()
        header = message.header
        try:
            answer = await self.pool.score(
                model.plan.digest, header.packing, header.rows, message.body, gone
            )
        except BusyError as error:
            self.metrics.shed.add("queue")
            raise Problem(
                503,
                "overloaded",
                str(error),
                "Make a new request later",
                headers={"retry-after": "1"},
            ) from None
        except GoneError as error:
            raise Problem(408, "gone", str(error), "Wait for the answer") from None
        except ScoringError as error:
            if error.refused:
                raise Problem(422, "no-ciphertexts", str(error), "Encrypt the rows again") from None
            raise Problem(
                503,
                "not-scored",
                str(error),
                "Make a new request, with fewer rows if it happens again",
                headers={"retry-after": "1"},
            ) from None
        self.metrics.stages.observe("score", perf_counter() - began)
        return answer


def described(entry: KeyEntry) -> dict[str, Any]:
    """Return a key as JSON data."""
    registration = entry.registration
    return {
        "key": registration.key_id,
        "tenant": registration.tenant,
        "parameters": registration.parameters,
        "created": registration.created,
        "ends": entry.ends,
        "revoked": entry.revoked,
    }


def unknown_key() -> Problem:
    """A key that is not there, or not the asker's: both look the same."""
    return Problem(404, "unknown-key", "this key is not registered here", "Register it")


def _packing(header: RequestHeader, model: ServedModel) -> Packing:
    for packing in model.plan.packings:
        if packing == header.packing:
            return packing
    raise Problem(
        422,
        "wrong-packing",
        f"packing {header.packing!r} is none of {list(model.plan.packings)}",
        "Encrypt the rows for this model",
        where="packing",
    )


def _may(token: Token, entry: KeyEntry) -> bool:
    return token.name == entry.registration.tenant or token.allows("admin")


def _now() -> int:
    return time.time_ns() // 1_000_000
