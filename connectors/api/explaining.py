"""``POST /v1/explain``: why a transaction would get its score, or why a past decision got its own.

State is read in the thread of the event loop, some 0.1 ms; the explanation is made in a thread of
its own with a time limit, so however long it takes, scores are answered meanwhile. When requests
wait already, explanations are refused first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, NamedTuple

import orjson

from connectors.api.deciding import decided_by
from connectors.api.engine import Engine
from connectors.api.entity_blocks import BlockMismatchError
from connectors.api.gate import Gate
from connectors.api.kept_answers import KeptAnswer, unpack_answer
from connectors.api.load_control import Level
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem, overloaded, too_large
from connectors.api.rate_limit import RateLimiter
from connectors.api.scoring import row_problem
from connectors.api.served_model import ModelError, ServedModel
from connectors.api.tokens import Token
from connectors.online_store.errors import StoreError
from tasks.explain.errors import AdditivityError
from tasks.fraud.heads.head import HeadError
from tasks.fraud.online.explanation import HeadExplanation
from tasks.fraud.online.parse import (
    OnlineTransaction,
    RowError,
    parse_event_id,
    parse_transaction,
)

logger = logging.getLogger(__name__)

ROUTE = "/v1/explain"
_SAME_SCORE = 1e-9


class ExplainLimits(NamedTuple):
    """What explanations may take.

    Attributes:
        seconds: Time for one, waiting for others included.
        rate: Explanations per second and token.
        max_body: Largest body, bytes.
    """

    seconds: float
    rate: float
    max_body: int


class _Decided(NamedTuple):
    """A decision and its explanation."""

    event: str
    score: float
    decision: str
    head: str
    rules: str
    told: HeadExplanation
    past: bool
    beside: dict[str, Any]


class Explaining:
    """Answers bodies of the route; counts and keeps nothing."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        metrics: Metrics,
        limits: ExplainLimits,
        now_ms: Callable[[], int],
    ) -> None:
        self._engine, self._gate, self._metrics = engine, gate, metrics
        self._limits, self._now_ms = limits, now_ms
        self._limiter = RateLimiter(limits.rate, limits.rate)
        self._thread = ThreadPoolExecutor(1, "explain")

    def close(self) -> None:
        """Take no more; what is under way is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self, token: Token, body: bytes, request_id: str) -> dict[str, Any]:
        """Return the explanation of a transaction, or of a past decision named by its event id.

        Raises:
            Problem: 400 or 422 on a body that is no good, 404 on an event that nobody keeps, 409 on
                one that cannot be explained, 413, 429 and 503 on too much at once.
        """
        if len(body) > self._limits.max_body:
            raise too_large(self._limits.max_body, fix="Send one transaction")
        self._admit(token)
        data = self._object(body)
        model = self._engine.model
        try:
            work = self._work(data, model)
            decided = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(self._thread, work),
                self._limits.seconds,
            )
        except RowError as error:
            self._metrics.refused.add(error.rule)
            raise row_problem(error) from None
        except TimeoutError:
            self._metrics.unexplained.add("late")
            raise Problem(
                503,
                "explainer-late",
                f"the explanation took more than {self._limits.seconds:g} s; the score of the "
                "transaction does not depend on it",
                "Send it again later, or raise PENSTOCK_API_EXPLAIN_MS",
                headers={"retry-after": "1"},
            ) from None
        except (HeadError, AdditivityError, ModelError) as error:
            self._metrics.unexplained.add("failed")
            raise _unexplained(error) from error
        except (StoreError, BlockMismatchError) as error:
            logger.error("nothing explained: %s", error)  # noqa: TRY400 - told whole
            raise Problem(
                503,
                "no-state",
                "the state of the entities could not be read",
                "Send it again later; the operator finds the cause in the log",
                headers={"retry-after": "5"},
            ) from error
        manifest = model.bundle.manifest
        return {
            "event_id": decided.event,
            "past": decided.past,
            "score": decided.score,
            "decision": decided.decision,
            **decided.told.to_dict(),
            "model": {**model.described, "head": decided.head},
            "features_version": manifest.features_version,
            "rules": decided.rules,
            **decided.beside,
            "request_id": request_id,
        }

    def _admit(self, token: Token) -> None:
        """Let explanations pass only while no score waits, and as many as their own rate allows."""
        level, _ = self._gate.admit()
        if level > Level.FULL:
            self._metrics.shed.add("explain-load")
            raise overloaded()
        self._gate.spend(token, 1)
        seconds = self._limiter.take(token.name, 1, monotonic())
        if seconds > 0:
            self._metrics.shed.add("explain-rate")
            raise Problem(
                429,
                "explain-rate",
                f"this token asks for more than {self._limits.rate:g} explanations a second",
                "Wait as long as Retry-After says, or raise PENSTOCK_API_EXPLAIN_RATE",
                headers={"retry-after": str(max(1, round(seconds + 0.5)))},
            )

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Problem(
                400, "not-json", f"the body is no JSON: {error}", "Send one JSON object"
            ) from None
        if not isinstance(data, dict):
            raise Problem(422, "not-an-object", "the body is no JSON object", "Send one object")
        return data

    def _work(self, data: dict[str, Any], model: ServedModel) -> Callable[[], _Decided]:
        """Read what the explanation needs; return what is left to do beside the event loop."""
        config = self._engine.config
        named = config.event_id or "event_id"
        if set(data) == {named}:
            event_id, event = parse_event_id(data, config)
            kept = self._kept(event_id)
            if kept is None:
                raise Problem(
                    404,
                    "unknown-event",
                    f"no answer to event {event!r} is kept",
                    "Send the whole transaction, or ask sooner (PENSTOCK_API_ANSWER_HOURS)",
                    where=named,
                )
            return _past(kept, model)
        transaction = parse_transaction(data, config, self._now_ms())
        kept = self._kept(transaction.event_id)
        if kept is not None:
            if not kept.is_of(transaction):
                raise Problem(
                    409,
                    "id-in-use",
                    f"event {transaction.event_name!r} was answered before with another time, "
                    "amount or entity",
                    "Give the transaction an id of its own",
                    where=named,
                )
            return _past(kept, model)
        return self._fresh(transaction, model)

    def _kept(self, event_id: int) -> KeptAnswer | None:
        content = self._engine.state.answers([event_id])[0]
        return None if content is None else unpack_answer(content)

    def _fresh(self, transaction: OnlineTransaction, model: ServedModel) -> Callable[[], _Decided]:
        engine = self._engine
        seen = engine.seen_by(transaction)
        rules = engine.rules

        def work() -> _Decided:
            head, score, inputs, told = model.told(seen.rows, seen.features)
            decision, beside = engine.decide(
                transaction, score, inputs, model=model, head=head, rules=rules
            )
            event, version = transaction.event_name, rules.version
            return _Decided(event, score, decision, head, version, told, past=False, beside=beside)

        return work


def _past(kept: KeptAnswer, model: ServedModel) -> Callable[[], _Decided]:
    """Return what explains a kept decision from what its head read then."""
    answer = orjson.loads(kept.body)
    scored_by = answer["model"]
    if scored_by["digest"] != model.described["digest"]:
        raise Problem(
            409,
            "other-model",
            f"event {kept.name!r} was decided by model {scored_by['digest']}, in service is "
            f"{model.described['digest']}",
            "Explain it by the bundle of that model; its answer with reasons is in /v1/score",
        )
    if not len(kept.inputs):
        raise Problem(
            409,
            "no-inputs",
            f"what was known of event {kept.name!r} at its decision is not kept: no model scored "
            "it, or an earlier version of the API did",
            "Send it to /v1/score again for its answer and the reasons given",
        )

    def work() -> _Decided:
        score, told = model.told_again(kept.inputs, scored_by["head"])
        if abs(score - answer["score"]) > _SAME_SCORE:
            raise ModelError(
                f"what is kept of event {kept.name!r} scores {score:.6g}, decided was on "
                f"{answer['score']:.6g}",
                "Report it: the kept answer is damaged",
            )
        return _Decided(
            kept.name,
            score,
            answer["decision"],
            scored_by["head"],
            answer["rules"],
            told,
            past=True,
            beside={
                **{n: answer[n] for n in ("approved_rules", "overruled") if n in answer},
                "decided_by": decided_by(answer["reasons"]),
            },
        )

    return work


def _unexplained(error: Exception) -> Problem:
    """Return the problem of a score that stands but cannot be explained."""
    if isinstance(error, AdditivityError):
        logger.error("explanation refused: %s", error)
        return Problem(
            500,
            "not-additive",
            f"the explanation does not add up to the score and is withheld: {error}",
            "Report the request id to the operator; scores are not touched by this",
        )
    if isinstance(error, ModelError):
        logger.error("nothing explained: %s", error)
        return Problem(500, "no-score", error.what, error.fix)
    return Problem(
        409,
        "no-explanation",
        f"the head in service has no exact contributions: {error}",
        "Serve a tree or logistic head to have its scores explained",
    )
