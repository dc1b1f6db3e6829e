"""Opens what is explained: the rows that a job asks for, with the model that decides on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.api.rules import NEVER, default_rules
from connectors.explain.own_model import OwnModel
from connectors.explain.own_subject import own_subject
from tasks.explain.catalogue.files import read_catalogue
from tasks.explain.drift import DAY_MS
from tasks.explain.errors import ExplanationError
from tasks.explain.record import ModelName
from tasks.explain.subject import Subject, Words
from tasks.fraud.bundle import Bundle

Source = Mapping[str, Any]
"""JSON data: ``kind`` is ``fraud`` (folders of a checked file, features and bundle) or ``own``."""

Chosen = tuple[Subject, NDArray[np.intp]]
"""A subject and the places of the rows that are asked for."""


def open_rows(source: Source, *, days: float, limit: int, seed: int) -> Chosen:
    """Open the newest rows.

    Args:
        source: What is explained.
        days: Whole days back from the last one; 0: all. Own rows without instants: all.
        limit: Most rows; more are drawn from.
        seed: Of the draw.

    Raises:
        ExplanationError: When model, rows and background do not fit.
    """
    if source["kind"] == "fraud":
        from tasks.fraud.explained import recent_rows

        bundle, tx, features = _opened(source)
        rows = recent_rows(tx, days, limit, seed=seed)
        return _fraud(source, bundle, tx, features, rows), np.arange(len(rows), dtype=np.intp)
    subject = own_subject(
        OwnModel.from_record(source["own"]), code=source["commit"], words=_words(source)
    )
    places = np.arange(len(subject.rows), dtype=np.intp)
    times = subject.facts.times
    if times is not None and days > 0:
        places = places[times > int(times.max()) - round(days * DAY_MS)]
    if len(places) > limit:
        places = np.sort(np.random.default_rng(seed).choice(places, limit, replace=False))
    return subject, places


def open_cases(source: Source, keys: Sequence[str], *, worst: int) -> Chosen:
    """Open single rows, with the rows that their pages compare them with.

    Args:
        source: What is explained.
        keys: Names of the rows; empty: those with the highest scores (of the last day).
        worst: How many of them.

    Raises:
        ExplanationError: On a key that is not there, or what does not fit.
    """
    if source["kind"] == "fraud":
        from tasks.fraud.explained import rows_around, rows_of_keys

        bundle, tx, features = _opened(source)
        if keys:
            cases = rows_of_keys(tx, list(keys))
        else:
            from tasks.fraud.report.inputs import last_day

            rows, scores = last_day(bundle, tx, features)
            cases = rows[np.argsort(-scores, kind="stable")[:worst]]
        rows = rows_around(tx, cases)
        return _fraud(source, bundle, tx, features, rows), np.searchsorted(rows, cases)
    subject = own_subject(
        OwnModel.from_record(source["own"]), code=source["commit"], words=_words(source)
    )
    if not keys:
        decided = subject.facts.decided
        assert decided is not None  # noqa: S101 - own_subject scores all rows
        return subject, np.argsort(-decided, kind="stable")[:worst]
    place = {key: p for p, key in enumerate(subject.facts.keys)}
    absent = [key for key in keys if key not in place]
    if absent:
        raise ExplanationError(
            f"the table has no row {absent[0]!r}; rows are named like {subject.facts.keys[0]!r}"
        )
    return subject, np.array([place[key] for key in keys], dtype=np.intp)


def thresholds_of(bundle: Bundle) -> dict[str, float]:
    """Return the scores from which a bundle proposes to review and to block."""
    rules = default_rules(bundle.thresholds, bundle.digest)
    both = {"review": rules.review_at, "block": rules.block_at}
    return {name: at for name, at in both.items() if at < NEVER}


def _opened(source: Source) -> tuple[Bundle, Any, Any]:
    from tasks.fraud.workspace import load_features, load_transactions_file

    bundle = Bundle.load(Path(source["bundle"]), digest=source["digest"])
    return (
        bundle,
        load_transactions_file(Path(source["data"])),
        load_features(Path(source["features"])),
    )


def _fraud(
    source: Source, bundle: Bundle, tx: Any, features: Any, rows: NDArray[np.intp]
) -> Subject:
    from tasks.fraud.explained import fraud_subject

    name = ModelName(source["model"], source["version"], source["digest"])
    return fraud_subject(
        bundle, tx, features, rows, model=name, thresholds=thresholds_of(bundle),
        code=source["commit"], words=_words(source),
    )  # fmt: skip


def _words(source: Source) -> Words:
    """Return the catalogue that was asked for, None where none was, and the language."""
    asked = source["words"]
    path = asked["catalogue"]
    return (read_catalogue(Path(path)) if path else None), asked["language"]
