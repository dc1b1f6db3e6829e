"""``POST /v1/labels``: what became of a transaction, told when it is known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from connectors.api.dead_letters import DUPLICATE, MALFORMED, DeadLetters
from connectors.api.engine import HandOn
from connectors.api.entity_states import EntityState
from connectors.api.journal import JournalError
from connectors.api.kept_answers import label_key, pack_label, unpack_answer, unpack_label
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem
from connectors.api.scoring import as_object, row_problem
from connectors.online_store.errors import StoreError
from tasks.fraud.ingest.checks import RULES
from tasks.fraud.online.parse import OnlineLabel, RowError, parse_event_id, parse_label

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig

logger = logging.getLogger(__name__)

ROUTE = "/v1/labels"
BATCH = "labels"


class Labels:
    """Takes labels; each event has one, the first."""

    def __init__(
        self,
        state: EntityState,
        config: DatasetConfig,
        dead: DeadLetters,
        metrics: Metrics,
        *,
        hand_on: HandOn,
        max_batch: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._state, self._config, self._dead, self._metrics = state, config, dead, metrics
        self._hand_on, self._max_batch, self._now_ms = hand_on, max_batch, now_ms

    def take(self, body: bytes) -> dict[str, Any]:
        """Take one label or a batch.

        Raises:
            Problem: The body, or its only label, is no good.
        """
        data = self._object(body)
        if BATCH not in data:
            answer = self._one(data, body)
            if isinstance(answer, Problem):
                raise answer
            return answer
        labels = data[BATCH]
        if not isinstance(labels, list) or not labels:
            raise Problem(
                422, "empty-batch", f"{BATCH!r} must be a list", "Send at least one", where=BATCH
            )
        if len(labels) > self._max_batch:
            raise Problem(
                413,
                "too-many",
                f"the batch has {len(labels)} labels, allowed are {self._max_batch}",
                "Split it",
                where=BATCH,
            )
        answers = []
        for place, label in enumerate(labels):
            answer = self._one(label, None)
            if isinstance(answer, Problem):
                answer = {"index": place, "problem": answer.document()}
            answers.append(answer)
        return {"answers": answers}

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            self._dead.add(body, MALFORMED, ROUTE)
            raise Problem(
                400, "not-json", f"the body is no JSON: {error}", "Send one JSON object"
            ) from None
        if not isinstance(data, dict):
            self._dead.add(body, MALFORMED, ROUTE)
            raise Problem(422, "not-an-object", "the body is no JSON object", "Send one object")
        return data

    def _one(self, data: Any, body: bytes | None) -> dict[str, Any] | Problem:
        payload = orjson.dumps(data) if body is None else body
        try:
            label, whole = self._parsed(as_object(data))
        except RowError as error:
            rule = RULES.get(error.rule, MALFORMED)
            self._dead.add(payload, rule, ROUTE, column=error.column, observed=error.observed)
            self._metrics.labels.add("refused")
            return row_problem(error)
        except Problem as problem:
            self._metrics.labels.add("refused")
            return problem
        key = label_key(label.event_id)
        kept = self._state.answers([key])[0]
        if kept is not None:
            return self._repeated(label, kept, payload)
        try:
            self._hand_on([orjson.dumps(whole)], [label.entities[0]])
            self._state.keep_label(label, {key: pack_label(label.label, label.label_time)})
        except (StoreError, JournalError) as error:
            self._state.forget(
                {(c.kind, e) for c, e in zip(self._state.columns, label.entities, strict=True)}
            )
            logger.error("label not kept: %s", error)  # noqa: TRY400 - told whole by the message
            return Problem(
                503,
                "not-kept",
                "the label could not be kept",
                "Send it again later; the operator finds the cause in the log",
                headers={"retry-after": "5"},
            )
        self._metrics.labels.add("accepted")
        return _answer(label.event_name, "accepted", label.label_time)

    def _repeated(
        self, label: OnlineLabel, kept: bytes, payload: bytes
    ) -> dict[str, Any] | Problem:
        self._dead.add(payload, DUPLICATE, ROUTE, column=self._config.event_id or "event_id")
        self._metrics.labels.add("repeated")
        before, counts_from = unpack_label(kept)
        if before != label.label:
            return Problem(
                409,
                "label-in-use",
                f"event {label.event_name!r} has been labelled {before} before",
                "The first label stays; correct it in the history the next model learns from",
                where=self._config.label or "label",
            )
        return _answer(label.event_name, "repeated", counts_from)

    def _parsed(self, data: Mapping[str, Any]) -> tuple[OnlineLabel, dict[str, Any]]:
        """Return the label, and the message with all that the stream needs of the event."""
        config = self._config
        needed = [config.time, *(e.column for e in config.entities)]
        whole = dict(data)
        if any(whole.get(name) is None for name in needed):
            self._complete(whole)
        return parse_label(whole, config, self._now_ms()), whole

    def _complete(self, data: dict[str, Any]) -> None:
        """Fill in time and entities of an event that was accepted here."""
        config = self._config
        event_id, name = parse_event_id(data, config)
        kept = self._state.answers([event_id])[0]
        if kept is None:
            raise Problem(
                404,
                "unknown-event",
                f"event {name!r} was not accepted here, or too long ago",
                f"Send {config.time!r} and its entities, too",
                where=config.event_id or "event_id",
            )
        event = unpack_answer(kept)
        data[config.time] = spell_time(event.time, config)
        for entity, value in zip(config.entities, event.entities, strict=True):
            data[entity.column] = value


def spell_time(ms: int, config: DatasetConfig) -> int | float | str:
    """Return epoch milliseconds as the config's data spell times; it parses to the same."""
    from datetime import UTC, datetime

    if config.time_unit == "auto":
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    past = ms - config.origin_ms
    per = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
    size = per.get(config.time_unit, 86_400_000)
    if size < 1:
        return past * round(1 / size)
    # A quarter of a millisecond more, so that cutting fractions off never falls one short.
    return past // size if past % size == 0 else (past + 0.25) / size


def _answer(event: str, status: str, counts_from: int) -> dict[str, Any]:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(counts_from / 1000, UTC)
    return {"event_id": event, "status": status, "counts_from": at.isoformat()}
