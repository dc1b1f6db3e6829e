"""``POST /v1/score``: bodies become transactions, transactions answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from connectors.api.dead_letters import MALFORMED, TOO_LARGE, DeadLetters
from connectors.api.engine import SLICE, Asked, Engine, Row
from connectors.api.gate import Gate
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem, failed, too_large
from connectors.api.reply import Reply, reply_to
from connectors.api.tokens import Token
from tasks.fraud.ingest.checks import RULES
from tasks.fraud.online.parse import OnlineTransaction, RowError, parse_transaction

logger = logging.getLogger(__name__)

ROUTE = "/v1/score"
BATCH = "transactions"
_EXPLAIN = "reasons"
_KNOWN = frozenset((BATCH, _EXPLAIN))


class Waiting(NamedTuple):
    """A request that waits to be answered.

    Attributes:
        token: Whose it is.
        body: Its bytes.
        request_id: What it goes by.
    """

    token: Token
    body: bytes
    request_id: str


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

    def together(self, requests: Sequence[Waiting]) -> list[Reply]:
        """Answer small requests that wait together, at most `SLICE`, within this call.

        What single transactions have in common is done once for all of them.
        """
        began = time.perf_counter_ns()
        replies: list[Reply | None] = [None] * len(requests)
        rows: list[Row] = []
        places: list[int] = []
        try:
            level, wait = self._gate.admit()
        except Problem as problem:
            return [reply_to(problem, request.request_id) for request in requests]
        asked = Asked(level, wait_ns=int(wait * 1e9))
        for place, request in enumerate(requests):
            try:
                data, explain = self._read(request.token, request.body)
                if isinstance(data, list):
                    replies[place] = self._batch(data, request, asked._replace(explain=explain))
                else:
                    rows.append(self._row(data, request))
                    places.append(place)
            except Problem as problem:
                replies[place] = reply_to(problem, request.request_id)
            except Exception:
                logger.exception("request %s failed", request.request_id)
                replies[place] = reply_to(failed(), request.request_id)
        asked = asked._replace(parse_ns=time.perf_counter_ns() - began)
        for place, reply in zip(places, self._replies(rows, asked), strict=True):
            replies[place] = reply
        return [reply for reply in replies if reply is not None]

    def _replies(self, rows: Sequence[Row], asked: Asked) -> list[Reply]:
        """Answer rows together; if that fails, each by itself, so that none fails for another."""
        if not rows:
            return []
        try:
            answers = self.engine.score(rows, asked)
        except Problem as problem:
            return [reply_to(problem, row.request_id) for row in rows]
        except Exception:
            logger.exception("%d requests failed, among them %s", len(rows), rows[0].request_id)
            if len(rows) == 1:
                return [reply_to(failed(), rows[0].request_id)]
            asked = asked._replace(parse_ns=asked.parse_ns // len(rows))
            return [reply for row in rows for reply in self._replies([row], asked)]
        return [
            reply_to(answer, row.request_id) if isinstance(answer, Problem) else Reply(200, answer)
            for row, answer in zip(rows, answers, strict=True)
        ]

    async def later(self, token: Token, body: bytes, request_id: str) -> Reply:
        """Answer a body of any size; other requests get their turn between slices."""
        request = Waiting(token, body, request_id)
        try:
            level, wait = self._gate.admit()
            data, explain = self._read(token, body)
            asked = Asked(level, explain, int(wait * 1e9))
            if isinstance(data, dict):
                return self._replies([self._row(data, request)], asked)[0]
            made: list[bytes] = []
            for start in range(0, len(data), SLICE):
                began = time.perf_counter()
                made += self._slice(data, start, request_id, asked)
                self._gate.load.spend_slice(time.perf_counter() - began)
                await asyncio.sleep(0)
            return _batch_reply(made, request_id)
        except Problem as problem:
            return reply_to(problem, request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            return reply_to(failed(), request_id)

    def count(self, statuses: Sequence[int], span_ns: int) -> None:
        """Count requests that took the short way together."""
        each = span_ns / len(statuses) / 1e9
        for status in statuses:
            self._metrics.requests.add(ROUTE, str(status))
            self._gate.load.spend(each)
            self._metrics.stages.observe("total", each)

    def _read(self, token: Token, body: bytes) -> tuple[dict[str, Any] | list[Any], bool]:
        """Return the transaction, or the transactions, of a body, and whether to explain them."""
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
        if BATCH not in data:
            self._gate.spend(token, 1)
            return data, True
        rows = self._rows_of(data)
        self._gate.spend(token, len(rows))
        return rows, bool(data.get(_EXPLAIN, self._explain_batches))

    def _rows_of(self, data: Mapping[str, Any]) -> list[Any]:
        """Return the transactions of a batch."""
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

    def _row(self, data: dict[str, Any], request: Waiting) -> Row:
        """Return the one transaction of a body, checked."""
        if len(request.body) > self._max_body:
            self._dead.add(request.body, TOO_LARGE, ROUTE)
            self._metrics.refused.add(TOO_LARGE.name)
            raise too_large(self._max_body)
        transaction = self._parsed(data, request.body)
        if isinstance(transaction, Problem):
            raise transaction
        return Row(transaction, data, request.request_id)

    def _batch(self, data: Sequence[Any], request: Waiting, asked: Asked) -> Reply:
        """Answer a small batch at once."""
        made: list[bytes] = []
        for start in range(0, len(data), SLICE):
            made += self._slice(data, start, request.request_id, asked)
        return _batch_reply(made, request.request_id)

    def _slice(self, rows: Sequence[Any], start: int, request_id: str, asked: Asked) -> list[bytes]:
        """Answer one slice of a batch: answers, or problems in their places."""
        began = time.perf_counter_ns()
        part = rows[start : start + SLICE]
        parsed = [self._parsed(data, None) for data in part]
        good = [
            Row(row, data, request_id)
            for row, data in zip(parsed, part, strict=True)
            if not isinstance(row, Problem)
        ]
        asked = asked._replace(parse_ns=time.perf_counter_ns() - began)
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
