"""What the page of one case shows, collected from a subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tasks.explain.counterfactual import Counterfactual, SearchConfig, nearest_change
from tasks.explain.neighbours import Neighbour, nearest
from tasks.explain.reasons import Reason
from tasks.explain.record import ExplanationSet, decision_of
from tasks.explain.subject import UNKNOWN, Beneath, Subject
from tasks.explain_report.plots import Step

Float = NDArray[np.float64]

SHOWN_STEPS = 14


@dataclass(frozen=True, slots=True)
class CaseConfig:
    """What goes into the page of a case.

    Attributes:
        neighbours: Known rows shown.
        compared: Most known rows explained to find them.
        history: Earlier rows of the entity shown.
        search: How a change of the decision is searched.
        seed: Of the draw of known rows.
    """

    neighbours: int = 6
    compared: int = 2_000
    history: int = 12
    search: SearchConfig = field(default_factory=SearchConfig)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier row of the same entity.

    Attributes:
        key: Its name.
        time: Epoch milliseconds.
        decided: Its score.
        decision: What was decided on it; empty for nothing.
        outcome: 1 bad, 0 good, -1 unknown.
    """

    key: str
    time: int
    decided: float
    decision: str
    outcome: int


@dataclass(frozen=True, slots=True)
class CasePage:
    """One case.

    Attributes:
        title: Of the model.
        found: The explanation, one row.
        reasons: Strongest first.
        steps: Bars of the waterfall.
        facts: Feature, value and contribution's player of every feature, in the model's order.
        change: What would have led to no decision; None where nothing that was tried does.
        below: Score that the change had to fall below; None where nothing was decided.
        fixed: Players in words that nobody could change.
        neighbours: Known rows scored for the same reasons.
        compared: Known rows that were compared.
        history: Earlier rows of the entity, newest first.
        entity_name: What the entity is called.
        outcome: 1 bad, 0 good, -1 unknown.
        beneath: Why the model beneath says what it says; None without one.
        beneath_steps: Bars of its waterfall.
    """

    title: str
    found: ExplanationSet
    reasons: tuple[Reason, ...]
    steps: tuple[Step, ...]
    facts: tuple[tuple[str, float, str], ...]
    change: Counterfactual | None
    below: float | None
    fixed: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    compared: int
    history: tuple[Earlier, ...]
    entity_name: str
    outcome: int
    beneath: Beneath | None = None
    beneath_steps: tuple[Step, ...] = ()


def collect_case(subject: Subject, place: int, config: CaseConfig | None = None) -> CasePage:
    """Explain one row of a subject and gather what an analyst asks next.

    Args:
        subject: Model and rows; its other rows serve as known rows and history.
        place: The row.
        config: What to show.

    Raises:
        ExplanationError: When the row cannot be explained.
    """
    settings = config or CaseConfig()
    explained = subject.explain(np.array([place], dtype=np.intp))
    found = explained.found
    contract = found.contract
    known = _known(subject, place, settings)
    neighbours: tuple[Neighbour, ...] = ()
    if len(known):
        others = subject.explain(known).found
        neighbours = nearest(found, others, subject.outcomes[known], count=settings.neighbours)
    below = min(subject.thresholds.values(), default=None)
    if below is not None and found.decided[0] < below:
        below = None
    change = None if below is None else _change(subject, found, known, below, settings)
    owner, labels = contract.players.owner, contract.labels
    facts = tuple(
        (name, float(found.data[0, f]), labels[owner[f]])
        for f, name in enumerate(contract.players.features)
    )
    beneath = subject.beneath(place) if subject.beneath else None
    named = dict(zip(contract.players.names, labels, strict=True))
    return CasePage(
        subject.title,
        found,
        explained.reasons[0],
        steps_of(labels, found.values[0], found.errors[0]),
        facts,
        change,
        below,
        tuple(named[p] for p in contract.players.names if p in subject.fixed),
        neighbours,
        len(known),
        _history(subject, place, settings.history),
        subject.entity_name,
        int(subject.outcomes[place]),
        beneath,
        steps_of(beneath.found.players, beneath.found.values[0], beneath.found.errors[0])
        if beneath
        else (),
    )


def steps_of(
    labels: Sequence[str], values: Float, errors: Float, most: int = SHOWN_STEPS
) -> tuple[Step, ...]:
    """Return the bars of a row's waterfall, largest first; the small ones become one."""
    order = np.argsort(-np.abs(values), kind="stable")
    order = order[values[order] != 0]
    steps = [Step(labels[p], float(values[p]), float(errors[p])) for p in order[:most]]
    rest = order[most:]
    if len(rest):
        total = float(np.hypot.reduce(errors[rest]))
        steps.append(Step(f"{len(rest)} others", float(values[rest].sum()), total))
    return tuple(steps)


def _change(
    subject: Subject,
    found: ExplanationSet,
    known: NDArray[np.intp],
    below: float,
    settings: CaseConfig,
) -> Counterfactual | None:
    """Search among known rows that were not bad; the frozen background where none is known."""
    good = known[subject.outcomes[known] == 0]
    rows = subject.rows[good] if len(good) else subject.background.values
    search = replace(settings.search, fixed=settings.search.fixed | subject.fixed)
    return nearest_change(
        subject.score, found.data[0], found.values[0], rows, found.contract.players, below, search
    )  # fmt: skip


def _known(subject: Subject, place: int, settings: CaseConfig) -> NDArray[np.intp]:
    """Return known rows: those with an outcome, else any; up to half of them bad."""
    others = np.arange(len(subject.rows), dtype=np.intp)
    others = others[others != place]
    told = others[subject.outcomes[others] != UNKNOWN]
    pool: Sequence[NDArray[np.intp]] = (
        [told[subject.outcomes[told] == o] for o in (1, 0)] if len(told) else [others]
    )
    rng = np.random.default_rng(settings.seed)
    most = settings.compared // len(pool)
    parts = [p if len(p) <= most else rng.choice(p, most, replace=False) for p in pool]
    return np.sort(np.concatenate(parts))


def _history(subject: Subject, place: int, most: int) -> tuple[Earlier, ...]:
    times, decided = subject.facts.times, subject.facts.decided
    if subject.entity is None or times is None or decided is None:
        return ()
    same = np.flatnonzero(subject.entity == subject.entity[place])
    before = same[times[same] <= times[place]]
    before = before[before != place]
    order = before[np.argsort(-times[before], kind="stable")][:most]

    return tuple(
        Earlier(
            subject.facts.keys[p],
            int(times[p]),
            float(decided[p]),
            decision_of(subject.thresholds, float(decided[p])),
            int(subject.outcomes[p]),
        )
        for p in order.tolist()
    )
