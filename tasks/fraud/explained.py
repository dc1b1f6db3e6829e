"""A fraud bundle and some of its transactions as a subject of explanation reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.catalogue.unmatched import warn_unmatched
from tasks.explain.errors import ExplanationError
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import rank_reasons
from tasks.explain.record import ModelName, RowFacts, of_trees
from tasks.explain.subject import NO_WORDS, Beneath, Explained, Subject, Words
from tasks.fraud.catalogue import bundle_catalogue, bundle_wording
from tasks.fraud.heads.explain import explain_head
from tasks.fraud.heads.files import head_from_dict
from tasks.fraud.report.inputs import explained_inputs
from tasks.fraud.score import last_days, score_transactions

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

SAME_SCORE = 1e-4
"""Difference between the bundle's ONNX head and its readable form that float32 may explain."""

BANDS = 4
"""Amount bands: quarters of the rows."""


def fraud_subject(
    bundle: Bundle,
    tx: Transactions,
    features: FeatureSet,
    rows: NDArray[np.intp],
    *,
    model: ModelName,
    thresholds: Mapping[str, float],
    code: str = "",
    words: Words = NO_WORDS,
) -> Subject:
    """Make chosen transactions a subject.

    Args:
        bundle: The model.
        tx: All transactions.
        features: Features of all of them.
        rows: Chosen rows, ascending.
        model: The bundle's name in the registry.
        thresholds: Decision -> score from which it is made.
        code: Commit of the code.
        words: Catalogue and language of the reasons; no catalogue: the bundle's.

    Raises:
        ExplanationError: When the readable head scores otherwise than the one that serves.
        HeadError: On a head without exact contributions.
    """
    names, values, frozen = explained_inputs(bundle, tx, features, rows)
    head = head_from_dict(json.loads(bundle.read_extra("heads.json"))[bundle.active])
    decided = score_transactions(bundle, tx, rows=rows, features=features)
    off = float(np.abs(head.predict(values) - decided).max(initial=0.0))
    if not off <= SAME_SCORE:
        raise ExplanationError(
            f"the head that can be read scores {off:.2g} off the one that serves: the bundle "
            "contradicts itself; train and publish again"
        )
    entities = [e.column for e in bundle.config.entities]
    groups = FeatureGroups.of(names, entities)
    wording = bundle_wording(bundle, words[1])
    catalogue = words[0] or bundle_catalogue(bundle)
    if words[0] is not None:
        warn_unmatched(catalogue, groups)
    facts = RowFacts(
        tuple(str(key) for key in tx.original_ids[rows]),
        decided,
        tx.time[rows],
        segments_of(tx, rows, bundle.config.decimals),
    )

    def explain(places: NDArray[np.intp], background: Background | None = None) -> Explained:
        chosen = values[places]
        found = explain_head(head, names, chosen, background or frozen)
        record = of_trees(found, groups, chosen, facts.take(places), model=model,
                          thresholds=thresholds, code=code)  # fmt: skip
        reasons = rank_reasons(found, chosen, groups, wording=wording, catalogue=catalogue)
        return Explained(record, tuple(tuple(one) for one in reasons))

    fixed = {m.group for m in groups.meanings if m.theme in {"labels", "embedding"}}
    return Subject(
        title=f"Fraud model of {bundle.config.name}",
        model=model,
        rows=values,
        facts=facts,
        background=frozen,
        score=lambda x: head.predict(np.asarray(x, dtype=np.float32)),
        explain=explain,
        thresholds=thresholds,
        outcomes=_known(tx, rows),
        entity=tx.entities[entities[0]][rows].astype(np.int64) if entities else None,
        entity_name=entities[0] if entities else "",
        fixed=frozenset(fixed),
        beneath=_beneath(bundle, tx, features, rows, values, groups),
    )


def _beneath(
    bundle: Bundle,
    tx: Transactions,
    features: FeatureSet,
    rows: NDArray[np.intp],
    values: NDArray[np.float32],
    groups: FeatureGroups,
) -> Callable[[int], Beneath] | None:
    """Return what explains the network that the active head reads; None where it reads none."""
    if not bundle.needs_graph():
        return None
    from tasks.fraud.graph import SIGNALS
    from tasks.fraud.graph.served import served_explainer

    logit = SIGNALS[0]
    column = len(bundle.feature_names) + SIGNALS.index(logit)
    (label,) = (label for label, members in zip(groups.labels, groups.members, strict=True)
                if column in members)  # fmt: skip
    explainer = cache(lambda: served_explainer(bundle, tx, features))  # few rows are asked for

    def beneath(place: int) -> Beneath:
        (explained,) = explainer().explain(rows[[place]])
        found, read = explained.found, float(values[place, column])
        off = abs(float(found.scores[0]) - read)
        if not off <= SAME_SCORE * (1.0 + abs(read)):
            raise ExplanationError(
                f"the network that can be explained says {off:.2g} off the one that serves: the "
                "bundle contradicts itself; train and publish again"
            )
        # All partners are one hop away: groups of them are told by mailbox and age alone.
        named = tuple(p.replace("1 hop away, ", "other partners, ") for p in found.players)
        return Beneath(label, logit, "log-odds", replace(found, players=named))

    return beneath


def segments_of(
    tx: Transactions, rows: NDArray[np.intp], decimals: int
) -> dict[str, tuple[str, ...]]:
    """Divide rows by amount band and by each category with few values."""
    made = {"amount band": _bands(tx.amount[rows] / 10**decimals)}
    for column, codes in tx.categorical.items():
        values = tx.categories[column]
        if len(values) <= 12:
            said = [str(values[c]) if c >= 0 else "missing" for c in codes[rows]]
            made[column] = tuple(said)
    return made


def _bands(amount: NDArray[np.float64]) -> tuple[str, ...]:
    ends = np.unique(np.quantile(amount, np.linspace(0, 1, BANDS + 1)[1:-1])) if len(amount) else []
    place = np.searchsorted(ends, amount, side="left")
    edges = [f"{e:,.2f}" for e in ends]
    names = [f"{low} to {high}" if low else f"up to {high}"
             for low, high in zip(["", *edges], [*edges, ""], strict=True)]  # fmt: skip
    names[-1] = f"above {edges[-1]}" if edges else "all"
    return tuple(names[p] for p in place)


def _known(tx: Transactions, rows: NDArray[np.intp]) -> NDArray[np.int8]:
    """Return labels that were known at the end of the data; -1 for the others."""
    now = int(tx.time[-1])
    known: NDArray[np.int8] = np.where(tx.label_time[rows] <= now, tx.label[rows], -1)
    return known.astype(np.int8)


def recent_rows(
    tx: Transactions, days: float, limit: int, *, seed: int = 0
) -> NDArray[np.intp]:  # fmt: skip
    """Draw up to ``limit`` rows of the last ``days`` whole days, ascending; 0 days: all."""
    rows = last_days(tx, days)
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    return rows


def rows_of_keys(tx: Transactions, keys: list[str]) -> NDArray[np.intp]:
    """Return the rows of event ids, in the order given.

    Raises:
        ExplanationError: On an id that the data do not have.
    """
    ids = np.array([str(key) for key in tx.original_ids])
    places = []
    for key in keys:
        found = np.flatnonzero(ids == key)
        if not len(found):
            raise ExplanationError(
                f"the data have no event {key!r} (or it was set aside by the checks); ids look "
                f"like {ids[-1]!r}"
            )
        places.append(int(found[0]))
    return np.array(places, dtype=np.intp)


def rows_around(
    tx: Transactions, cases: NDArray[np.intp], *, history: int = 12, known: int = 3_000,
    seed: int = 0,
) -> NDArray[np.intp]:  # fmt: skip
    """Return the rows that pages of cases need, ascending.

    Args:
        tx: All transactions.
        cases: Rows of the cases.
        history: Earlier rows of each case's first entity.
        known: Rows with a known outcome, to compare with: up to half of them frauds.
        seed: Of their draw.
    """
    chosen = [cases]
    first = next(iter(tx.entities.values()), None)
    if first is not None:
        for case in cases.tolist():
            same = np.flatnonzero(first[: case + 1] == first[case])
            chosen.append(same[-history - 1 :])
    rng = np.random.default_rng(seed)
    labels = _known(tx, np.arange(len(tx), dtype=np.intp))
    for outcome in (1, 0):
        rows = np.flatnonzero(labels == outcome)
        most = min(len(rows), known // 2)
        chosen.append(rng.choice(rows, most, replace=False))
    around: NDArray[np.intp] = np.unique(np.concatenate(chosen)).astype(np.intp)
    return around
