"""Counting events: what they see of their entities, and what they leave there.

The blocks lie in one piece of memory, so a slice of rows takes one compiled call for the tiles and
one for the mail, in the order of the rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.api.entity_states import EntityState, Touched
from connectors.api.served_model import ServedModel
from kernels.entity_state.visit import Mail, exchange_mail, visit_rows
from tasks.fraud.online.parse import OnlineTransaction
from tasks.fraud.online.rows import OnlineMail, OnlineRows


@dataclass(slots=True)
class Counted:
    """Rows whose events have been counted in the blocks, before they are kept.

    Attributes:
        rows: What the events saw.
        features: Their features, float32 [n, F].
        touched: What they touched, to be kept with the answers.
        state_ns: Nanoseconds spent on state and mail.
        features_ns: Nanoseconds spent on features.
    """

    rows: OnlineRows
    features: NDArray[np.float32]
    touched: list[Touched]
    state_ns: int
    features_ns: int


class EventCounter:
    """Reads and changes the blocks of the entities of some events."""

    def __init__(self, state: EntityState, model: ServedModel) -> None:
        self._state = state
        self._columns = state.columns
        self._kinds = [column.kind for column in state.columns]
        self._width = state.columns[0].blocks.width
        self._categorical = len(model.bundle.config.categorical)
        self._words, self._reals = state.memory, state.memory.view(np.float64)
        self._padded = 2 * state.columns[0].blocks.plan.mail_words
        self.replace_model(model)

    def replace_model(self, model: ServedModel) -> None:
        """Make features and messages as another model reads them."""
        self._message = _message_places(model)
        self._model = model

    def count(self, transactions: Sequence[OnlineTransaction]) -> Counted:
        """Read what the events see, then count them, one after the other."""
        began = time.perf_counter_ns()
        columns, n = self._columns, len(transactions)
        slots = self._state.fetch(
            [
                (kind, e)
                for t in transactions
                for kind, e in zip(self._kinds, t.entities, strict=True)
            ]
        )
        places = [
            [slots[pair] for pair in zip(self._kinds, t.entities, strict=True)]
            for t in transactions
        ]
        pairs = [list(zip(columns, row, strict=True)) for row in places]
        bases = np.array([[c.blocks.place(s, c.role) for c, s in row] for row in pairs], np.int64)
        ids = np.array([t.event_id for t in transactions], np.int64)
        at = np.array([t.time for t in transactions], np.int64)
        amount = np.array([t.amount for t in transactions], np.int64)
        raw = np.empty((n, len(columns), self._width))
        self._visit(transactions, places, (bases, ids, at, amount, raw))
        counted = time.perf_counter_ns()
        keys = np.array([[c.blocks.keys[s] for c, s in row] for row in pairs], np.int64)
        rows = OnlineRows(
            at,
            amount,
            raw,
            np.array([t.numeric for t in transactions], np.float64).reshape(n, -1),
            [[t.categorical[i] for t in transactions] for i in range(self._categorical)],
            keys,
        )
        features = self._model.online.features(rows)
        derived = time.perf_counter_ns()
        vectors = self._vectors(features)
        mail = self._exchange_mail(rows, places, bases, keys, vectors)
        if mail is not None:
            rows = replace(rows, mail=mail)
        touched = [
            Touched(t.event_id, t.time, t.amount, t.entities, keys[i].tolist(), vectors[i])
            for i, t in enumerate(transactions)
        ]
        done = time.perf_counter_ns()
        state_ns = (counted - began) + (done - derived)
        return Counted(rows, features, touched, state_ns, derived - counted)

    def _visit(
        self,
        transactions: Sequence[OnlineTransaction],
        places: Sequence[Sequence[int]],
        arrays: tuple[NDArray[Any], ...],
    ) -> None:
        """Count events in order, releasing before each the labels that are due for it."""
        columns, plan = self._columns, self._columns[0].blocks.plan
        words, reals, start = self._words, self._reals, 0
        for i, t in enumerate(transactions):
            row = list(zip(columns, places[i], strict=True))
            if not any(c.blocks.is_due(s, c.role, t.time) for c, s in row):
                continue
            if i > start:
                visit_rows(words, reals, plan, *(array[start:i] for array in arrays))
                start = i
            for column, slot in row:
                column.blocks.release_due(slot, column.role, t.time, t.event_id)
        visit_rows(words, reals, plan, *(array[start:] for array in arrays))

    def _exchange_mail(
        self,
        rows: OnlineRows,
        places: Sequence[Sequence[int]],
        bases: NDArray[np.int64],
        keys: NDArray[np.int64],
        vectors: NDArray[np.int64],
    ) -> OnlineMail | None:
        """Let every event read its mailboxes, if the model does, and leave its message."""
        layout, columns, n = self._model.online.layout, self._columns, len(bases)
        sections = []
        if self._model.needs_mail:
            for reader, section in zip(layout.reader, layout.section, strict=True):
                sections.append((reader, columns[reader].blocks, columns[section].role))
        read = [[blocks.place(row[p], role) for p, blocks, role in sections] for row in places]
        shape = (n, len(sections), layout.slots)
        mail = Mail(
            np.array(read, np.int64).reshape(n, len(sections)),
            np.zeros(shape, np.bool_),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.zeros((*shape, vectors.shape[1]), np.int64),
        )
        plan = columns[0].blocks.plan
        exchange_mail(self._words, plan, bases, keys, rows.time, rows.amount, vectors, mail)
        if not sections:
            return None
        floats = mail.vector.view(np.float32)[..., : len(layout.features)]
        return OnlineMail(mail.present, mail.time, mail.amount, mail.counterpart, floats)

    def _vectors(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the messages the rows leave, float32 padded and seen as int64 words."""
        padded = np.zeros((len(features), self._padded), np.float32)
        padded[:, : len(self._message)] = np.arcsinh(features[:, self._message].astype(np.float64))
        return padded.view(np.int64)


def _message_places(model: ServedModel) -> NDArray[np.intp]:
    """Return where the features that messages carry stand in the feature rows."""
    names = model.bundle.feature_names
    return np.array([names.index(name) for name in model.online.layout.features], np.intp)
