"""From checked transactions to kept answers: state, features, score, reasons, decision, commit.

All of it runs in the thread of the event loop, so events are counted one after the other and no
lock is needed. A slice of a batch goes through the same steps at once: the state takes its rows in
order, the model all together.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from connectors.api.approved_rules import ApprovedRules, DecidedBy
from connectors.api.counting import Counted, EventCounter
from connectors.api.deciding import Decider, count_conflicts
from connectors.api.entity_blocks import BlockMismatchError
from connectors.api.entity_states import EntityState
from connectors.api.journal import Journal, JournalError
from connectors.api.kept_answers import KeptAnswer, pack_answer, unpack_answer
from connectors.api.live import Decision, LiveDecisions
from connectors.api.load_control import Level
from connectors.api.metrics import Metrics
from connectors.api.problem import Problem
from connectors.api.reasons_budget import ReasonsBudget
from connectors.api.rules import Rules
from connectors.api.served_model import NO_REASONS, Scored, ServedModel
from connectors.online_store.errors import ConflictError, StoreError
from tasks.fraud.online.parse import OnlineTransaction
from tasks.fraud.online.rows import OnlineRows

logger = logging.getLogger(__name__)

SLICE = 256
"""Rows of a batch that are handled before other requests get their turn, some 12 ms; a commit of
the store for 64 rows costs a quarter more per row."""

_PERIODS = ("parse", "state", "features", "head", "reasons")


class Row(NamedTuple):
    """A transaction to answer.

    Attributes:
        transaction: As it was checked.
        sent: The object it was sent as.
        request_id: Id of its request.
    """

    transaction: OnlineTransaction
    sent: Mapping[str, Any]
    request_id: str


class Asked(NamedTuple):
    """How some transactions are to be answered.

    Attributes:
        level: What there is time for.
        explain: Whether reasons are wanted.
        wait_ns: How long they waited.
        parse_ns: How long parsing took, all together.
    """

    level: Level = Level.FULL
    explain: bool = True
    wait_ns: int = 0
    parse_ns: int = 0


HandOn = Callable[[Sequence[bytes], Sequence[str]], None]
Shadow = Callable[[OnlineRows, Sequence[float], Sequence[str]], None]


class Engine:
    """Scores transactions against the state and keeps both.

    Attributes:
        model: The champion in service.
        rules: The rules in force.
    """

    def __init__(
        self,
        state: EntityState,
        model: ServedModel,
        rules: Rules,
        *,
        hand_on: HandOn,
        metrics: Metrics,
        live: LiveDecisions,
        shadow: Shadow | None = None,
        reasons_from: str = "approve",
        reasons_seconds: float = 0.005,
        approved: ApprovedRules | None = None,
        conflicts: Journal | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            state: The entities' state.
            model: The champion.
            rules: The rules.
            hand_on: Gets accepted events as JSON lines, and what they are partitioned by, before
                they are kept; raises JournalError when it cannot take them.
            metrics: Counters.
            live: Decisions for the page.
            shadow: Gets rows, scores and decisions after each answer.
            reasons_from: Least decision that is explained.
            reasons_seconds: What transactions answered together may take for their reasons.
            approved: Rules that run beside the model.
            conflicts: Journal of their disagreements with it.
        """
        self.state, self.model, self.rules = state, model, rules
        self.config = model.bundle.config
        self._hand_on, self._metrics, self._live, self._shadow = hand_on, metrics, live, shadow
        self._reasons_from = reasons_from
        self._budget = ReasonsBudget(reasons_seconds, metrics)
        self._unit = 10.0**self.config.decimals
        self._columns = state.columns
        self._kinds = [column.kind for column in state.columns]
        names = [column.name for column in state.columns]
        self._decider = Decider(self._kinds, names, approved, conflicts)
        self._counter = EventCounter(state, model)

    @property
    def approved(self) -> ApprovedRules | None:
        """The rules that run beside the model."""
        return self._decider.approved

    def replace_model(self, model: ServedModel) -> None:
        """Serve another champion from the next request on.

        Raises:
            UnreadFeatureError: The approved rules read what it has not; the one so far stays.
        """
        if self.approved is not None:
            self.approved.require(model.columns(model.heads[0]))
        self._counter.replace_model(model)
        self.model = model

    def warn_of_vetoes(self) -> None:
        """Log when approved rules may no longer veto beside the model and rules in force."""
        if self.approved is not None:
            self.approved.warn(self._decided_by)

    def described_rules(self) -> dict[str, Any] | None:
        """Return what the page of the model tells of approved rules."""
        return None if self.approved is None else self.approved.described(self._decided_by)

    @property
    def _decided_by(self) -> DecidedBy:
        return DecidedBy(self.model.bundle.digest, self.rules.thresholds)

    def score(self, rows: Sequence[Row], asked: Asked) -> list[bytes | Problem]:
        """Answer transactions; one that was answered before gets the same bytes again.

        Args:
            rows: At most `SLICE` checked transactions, in the order in which they count.
            asked: How.

        Returns:
            An answer as JSON, or a problem, for each.

        Raises:
            Problem: Nothing could be kept, so nothing was counted.
        """
        if len(rows) > SLICE:
            raise ValueError(f"{len(rows)} rows at once; slice them by {SLICE}")
        try:
            return self._score(rows, asked)
        except ConflictError:
            # Another process answered one of them in between: read what it kept.
            self._forget(rows)
            try:
                return self._score(rows, asked)
            except (StoreError, JournalError) as error:
                raise self._not_kept(rows, error) from error
        except (StoreError, JournalError) as error:
            raise self._not_kept(rows, error) from error
        except BlockMismatchError as error:
            self._forget(rows)
            raise Problem(500, "state-mismatch", str(error), "Seed a new store") from error
        except BaseException:
            self._forget(rows)
            raise

    def seen_by(self, transaction: OnlineTransaction) -> Counted:
        """Return what a transaction would see, without counting it.

        Its entities' blocks are dropped from memory afterwards, as they hold it now, and are read
        from the store when they are needed next.

        Raises:
            StoreError: The state cannot be read.
            BlockMismatchError: It is of another layout.
        """
        try:
            return self._counter.count([transaction])
        finally:
            self._forget([Row(transaction, {}, "")])

    def decide(
        self,
        transaction: OnlineTransaction,
        score: float,
        values: NDArray[np.float32],
        *,
        model: ServedModel,
        head: str,
        rules: Rules,
    ) -> tuple[str, dict[str, Any]]:
        """Return what rules say to one score, and what decided besides it.

        Model and rules are given: those in force may change while an explanation is made.

        Args:
            transaction: The transaction.
            score: Its score.
            values: float32 [1, W], what the head read.
            model: The model that scored.
            head: Which of its heads did.
            rules: Thresholds and block lists.
        """
        decider = self._decider
        decided = decider.decide(
            rules, [transaction.entities], [score], values, model=model, head=head
        )
        first = decider.first(decided, 0)
        return decided.final[0], {**decider.told(decided, 0), "decided_by": first}

    def rehearse(self, entities: Sequence[str]) -> None:
        """Run the steps of an event on blocks that are held already and forgotten afterwards."""
        nobody = OnlineTransaction(0, "", 0, 0, tuple(entities))
        extras = (math.nan,) * len(self.config.numeric), (None,) * len(self.config.categorical)
        self._counter.count([replace(nobody, numeric=extras[0], categorical=extras[1])])

    def _score(self, rows: Sequence[Row], asked: Asked) -> list[bytes | Problem]:
        answers: list[bytes | Problem | None] = [None] * len(rows)
        fresh: list[int] = []
        place: dict[int, int] = {}
        kept = self.state.answers([row.transaction.event_id for row in rows])
        for i, (transaction, *_) in enumerate(rows):
            content = kept[i]
            if content is not None:
                answers[i] = self._again(transaction, unpack_answer(content))
            elif transaction.event_id not in place:
                place[transaction.event_id] = i
                fresh.append(i)
        if fresh:
            made = self._answer_fresh([rows[i] for i in fresh], asked)
            for i, body in zip(fresh, made, strict=True):
                answers[i] = body
        for i, (transaction, *_) in enumerate(rows):
            if answers[i] is None:  # the same id twice in one slice
                first = rows[place[transaction.event_id]].transaction
                made_first = answers[place[transaction.event_id]]
                answers[i] = (
                    self._again(transaction, _as_kept(first, made_first))
                    if isinstance(made_first, bytes)
                    else made_first
                )
        return [answer for answer in answers if answer is not None]

    def _again(self, transaction: OnlineTransaction, kept: KeptAnswer) -> bytes | Problem:
        if not kept.is_of(transaction):
            return Problem(
                409,
                "id-in-use",
                f"event {transaction.event_name!r} was answered before with another time, amount "
                "or entity",
                "Give every event an id of its own",
                where=self.config.event_id or "event_id",
            )
        self._metrics.repeated.add()
        return kept.body

    def _answer_fresh(self, rows: Sequence[Row], asked: Asked) -> list[bytes]:
        transactions = [row.transaction for row in rows]
        stepped = self._counter.count(transactions)
        model, rules = self.model, self.rules
        scored = model.score(
            stepped.rows,
            stepped.features,
            asked.level,
            explain=asked.explain,
            least=rules.least_score(self._reasons_from),
            budget=self._budget,
        )
        scores = scored.scores.tolist()
        values = stepped.features if scored.inputs is None else scored.inputs
        entities = [transaction.entities for transaction in transactions]
        decided = self._decider.decide(
            rules, entities, scores, values, model=model, head=scored.head
        )
        shared = self._shared(scored, stepped, asked)
        bodies, told = [], []
        for row, transaction in enumerate(transactions):
            found = None if scored.reasons is None else scored.reasons[row]
            told.append(self._decider.reasons(decided, row, found))
            answer = {
                "event_id": transaction.event_name,
                "score": None if math.isnan(scores[row]) else scores[row],
                "decision": decided.final[row],
                "reasons": told[-1],
                "request_id": rows[row].request_id,
                **self._decider.told(decided, row),
                **shared,
            }
            if row in scored.unexplained:
                answer["degraded"] = (*scored.degraded, NO_REASONS)
            bodies.append(orjson.dumps(answer))
        began = time.perf_counter_ns()
        lines = [orjson.dumps(row.sent) for row in rows]
        if decided.conflicts:
            sent = [
                (t.event_name, t.time, row.request_id)
                for t, row in zip(transactions, rows, strict=True)
            ]
            self._decider.keep(decided, sent, scores, shared)
        self._hand_on(lines, [t.entities[0] for t in transactions])
        self.state.finish(
            stepped.touched,
            {
                t.event_id: pack_answer(t, b, None if scored.inputs is None else scored.inputs[i])
                for i, (t, b) in enumerate(zip(transactions, bodies, strict=True))
            },
        )
        store_ns = time.perf_counter_ns() - began
        count_conflicts(decided, self._metrics)
        firsts = [_first_reason(reasons) for reasons in told]
        self._note(transactions, scores, decided.final, firsts, scored, stepped, store_ns)
        if self._shadow is not None and scored.head == model.heads[0]:
            # The challenger is held against the champion, not against rules that stand beside it.
            self._shadow(stepped.rows, scores, decided.without_rules)
        return bodies

    def _shared(self, scored: Scored, stepped: Counted, asked: Asked) -> dict[str, Any]:
        """Return what is the same in the answers of all rows."""
        model, n = self.model, len(stepped.rows)
        spans = (
            asked.parse_ns,
            stepped.state_ns,
            stepped.features_ns,
            scored.head_ns,
            scored.reasons_ns,
        )
        latency = {name: span // n // 1000 for name, span in zip(_PERIODS, spans, strict=True)}
        latency["wait"] = asked.wait_ns // 1000
        return {
            "model": {**model.described, "head": scored.head},
            "features_version": model.bundle.manifest.features_version,
            "rules": self.rules.version,
            "degraded": scored.degraded,
            "latency_us": latency,
        }

    def _note(
        self,
        transactions: Sequence[OnlineTransaction],
        scores: Sequence[float],
        decisions: Sequence[str],
        firsts: Sequence[str],
        scored: Scored,
        stepped: Counted,
        store_ns: int,
    ) -> None:
        metrics, n = self._metrics, len(transactions)
        stages = metrics.stages
        stages.observe("state", stepped.state_ns / n / 1e9)
        stages.observe("features", stepped.features_ns / n / 1e9)
        stages.observe("head", scored.head_ns / n / 1e9)
        if scored.reasons is not None:
            stages.observe("reasons", scored.reasons_ns / n / 1e9)
        stages.observe("store", store_ns / n / 1e9)
        for what in scored.degraded:
            metrics.degraded.add(what, by=n)
        if scored.unexplained:
            metrics.degraded.add(NO_REASONS, by=len(scored.unexplained))
        for i, (t, decision) in enumerate(zip(transactions, decisions, strict=True)):
            metrics.decisions.add(decision)
            score = scores[i]
            self._live.add(
                Decision(
                    t.event_name,
                    t.time,
                    t.amount / self._unit,
                    t.entities,
                    None if math.isnan(score) else score,
                    decision,
                    firsts[i],
                )
            )

    def _not_kept(self, rows: Sequence[Row], error: Exception) -> Problem:
        self._forget(rows)
        logger.error("events not kept: %s", error)
        return Problem(
            503,
            "not-kept",
            "the event could not be kept, so it was not counted",
            "Send it again later; the operator finds the cause in the log",
            headers={"retry-after": "5"},
        )

    def _forget(self, rows: Sequence[Row]) -> None:
        self.state.forget(
            {
                (column.kind, name)
                for t, *_ in rows
                for column, name in zip(self._columns, t.entities, strict=True)
            }
        )


def _first_reason(reasons: Sequence[Mapping[str, Any]] | None) -> str:
    if reasons is None:
        return "no reasons were made"
    return str(reasons[0]["text"]) if reasons else "nothing raised this score"


def _as_kept(transaction: OnlineTransaction, body: bytes) -> KeptAnswer:
    return unpack_answer(pack_answer(transaction, body))
