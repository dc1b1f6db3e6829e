"""``POST /v1/score``: bodies become transactions, transactions answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from connectors.api.dead_letters import MALFORMED, TOO_LARGE, DeadLetters
from connectors.api.engine import SLICE, Asked, Engine, Row
from connectors.api.gate import Gate
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem, too_large
from connectors.api.reply import Reply, reply_to
from tasks.fraud.ingest.checks import RULES
from tasks.fraud.online.parse import OnlineTransaction, RowError, parse_transaction

if TYPE_CHECKING:
    from connectors.api.tokens import Token

logger = logging.getLogger(__name__)

ROUTE = "/v1/score"
BATCH = "transactions"
_EXPLAIN = "reasons"
_KNOWN = frozenset((BATCH, _EXPLAIN))


class Scoring:
    """Answers bodies of the route, at once or slice by slice."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        dead: DeadLetters,
        metrics: Metrics,
        *,
        max_body: int,
        max_batch: int,
        explain_batches: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self.engine, self._gate, self._dead, self._metrics = engine, gate, dead, metrics
        self._max_body = max_body
        self._max_batch, self._explain_batches = max_batch, explain_batches
        self._now_ms = now_ms

    def now(self, token: Token, body: bytes, request_id: str) -> Reply:
        """Answer a small body at once, within this call."""
        try:
            rows, asked = self._admitted(token, body, request_id)
            if isinstance(rows, dict):
                return self._single(rows, body, asked)
            made: list[bytes] = []
            for start in range(0, len(rows), SLICE):
                made += self._slice(rows, start, asked)
            return _batch_reply(made, request_id)
        except Problem as problem:
            return reply_to(problem, request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            return reply_to(failed(), request_id)

    async def later(self, token: Token, body: bytes, request_id: str) -> Reply:
        """Answer a body of any size; other requests get their turn between slices."""
        try:
            rows, asked = self._admitted(token, body, request_id)
            if isinstance(rows, dict):
                return self._single(rows, body, asked)
            made: list[bytes] = []
            for start in range(0, len(rows), SLICE):
                began = time.perf_counter()
                made += self._slice(rows, start, asked)
                self._gate.load.spend_slice(time.perf_counter() - began)
                await asyncio.sleep(0)
            return _batch_reply(made, request_id)
        except Problem as problem:
            return reply_to(problem, request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            return reply_to(failed(), request_id)

    def count(self, status: int, span_ns: int) -> None:
        """Count a request that took the short way."""
        self._metrics.requests.add(ROUTE, str(status))
        self._gate.load.spend(span_ns / 1e9)
        self._metrics.stages.observe("total", span_ns / 1e9)

    def _admitted(
        self, token: Token, body: bytes, request_id: str
    ) -> tuple[dict[str, Any] | list[Any], Asked]:
        """Return the transaction, or the transactions, of a body that may pass."""
        level, wait = self._gate.admit()
        began = time.perf_counter_ns()
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            self._dead.add(body, MALFORMED, ROUTE)
            self._metrics.refused.add(MALFORMED.name)
            raise Problem(
                400, "not-json", f"the body is no JSON: {error}", "Send one JSON object"
            ) from None
        if not isinstance(data, dict):
            self._dead.add(body, MALFORMED, ROUTE)
            self._metrics.refused.add(MALFORMED.name)
            raise Problem(422, "not-an-object", "the body is no JSON object", "Send one object")
        rows: dict[str, Any] | list[Any] = data
        explain = True
        if BATCH in data:
            rows = self._batch(data)
            explain = data.get(_EXPLAIN, self._explain_batches)
        self._gate.spend(token, len(rows) if isinstance(rows, list) else 1)
        parse_ns = time.perf_counter_ns() - began
        return rows, Asked(request_id, level, explain, int(wait * 1e9), parse_ns)

    def _batch(self, data: Mapping[str, Any]) -> list[Any]:
        rows = data[BATCH]
        if not isinstance(rows, list) or not rows:
            raise Problem(
                422,
                "empty-batch",
                f"{BATCH!r} must be a list of transactions",
                "Send at least one",
                where=BATCH,
            )
        if len(rows) > self._max_batch:
            raise Problem(
                413,
                "too-many",
                f"the batch has {len(rows)} transactions, allowed are {self._max_batch}",
                "Split it",
                where=BATCH,
            )
        unknown = sorted(set(data) - _KNOWN)
        if unknown:
            raise Problem(
                422, "unknown-member", f"a batch has no member {unknown[0]!r}", "Remove it"
            )
        if not isinstance(data.get(_EXPLAIN, False), bool):
            raise Problem(
                422, "not-a-boolean", f"{_EXPLAIN!r} must be true or false", where=_EXPLAIN
            )
        return rows

    def _single(self, data: dict[str, Any], body: bytes, asked: Asked) -> Reply:
        began = time.perf_counter_ns()
        if len(body) > self._max_body:
            self._dead.add(body, TOO_LARGE, ROUTE)
            self._metrics.refused.add(TOO_LARGE.name)
            raise too_large(self._max_body)
        row = self._parsed(data, body)
        if isinstance(row, Problem):
            raise row
        asked = asked._replace(parse_ns=asked.parse_ns + time.perf_counter_ns() - began)
        answer = self.engine.score([(row, data)], asked)[0]
        if isinstance(answer, Problem):
            raise answer
        return Reply(200, answer)

    def _slice(self, rows: Sequence[Any], start: int, asked: Asked) -> list[bytes]:
        """Answer one slice of a batch: answers, or problems in their places."""
        began = time.perf_counter_ns()
        part = rows[start : start + SLICE]
        parsed = [self._parsed(data, None) for data in part]
        good: list[Row] = [
            (row, data)
            for row, data in zip(parsed, part, strict=True)
            if not isinstance(row, Problem)
        ]
        spent = time.perf_counter_ns() - began
        asked = asked._replace(parse_ns=asked.parse_ns * len(part) // len(rows) + spent)
        answers = iter(self.engine.score(good, asked) if good else ())
        made = []
        for place, row in enumerate(parsed):
            answer = row if isinstance(row, Problem) else next(answers)
            if isinstance(answer, Problem):
                answer = orjson.dumps({"index": start + place, "problem": answer.document()})
            made.append(answer)
        return made

    def _parsed(self, data: Any, body: bytes | None) -> OnlineTransaction | Problem:
        """Check one transaction; what breaks a rule goes to the dead letters."""
        try:
            return parse_transaction(as_object(data), self.engine.config, self._now_ms())
        except RowError as error:
            rule = RULES.get(error.rule, MALFORMED)
            payload = orjson.dumps(data) if body is None else body
            self._dead.add(payload, rule, ROUTE, column=error.column, observed=error.observed)
            self._metrics.refused.add(error.rule)
            return row_problem(error)


def as_object(data: Any) -> dict[str, Any]:
    """Return a parsed JSON object, or raise RowError for anything else."""
    if not isinstance(data, dict):
        raise RowError("not-an-object", "", type(data).__name__)
    return data


def row_problem(error: RowError) -> Problem:
    """Return the problem of a value that breaks a rule of the checks."""
    rule = RULES.get(error.rule)
    expected = f"expected {rule.expected}" if rule is not None else "expected a JSON object"
    return Problem(422, error.rule, f"{error}: {expected}", "Correct it", where=error.column)


def _batch_reply(made: Sequence[bytes], request_id: str) -> Reply:
    head = b'{"request_id":' + orjson.dumps(request_id) + b',"answers":['
    return Reply(200, b"".join((head, b",".join(made), b"]}")))


def failed() -> Problem:
    """Return the problem of a failure that is ours."""
    return Problem(
        500,
        "failed",
        "the request failed here, not by anything you sent",
        "Report the request id to the operator",
    )
