"""Rules that stand for a model, mined from a subject and written as text, JSON and SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.files import atomic_path
from tasks.explain.errors import ExplanationError
from tasks.explain.rules.export import ansi_sql, flink_sql, to_text
from tasks.explain.rules.files import to_json
from tasks.explain.rules.measure import SetFigures, measure
from tasks.explain.rules.mine import MineConfig, mine
from tasks.explain.rules.model import RuleSet, table_digest
from tasks.explain.rules.teacher import Teacher
from tasks.explain.subject import Subject
from tasks.fraud.heads.calibration import logit

FILES = ("rules.txt", "rules.json", "rules.sql", "rules.flink.sql")
UNSEEN = 0.3
"""Share of the rows, the newest, that figures are taken on and nothing is mined from."""


@dataclass(frozen=True, slots=True)
class MinedRules:
    """A rule set with its figures on rows it was not mined from.

    Attributes:
        rules: The set.
        figures: Against the model's decisions on the newest rows.
        mined: Rows it was mined from.
        measured: Rows it was measured on.
    """

    rules: RuleSet
    figures: SetFigures
    mined: int
    measured: int

    @property
    def metrics(self) -> dict[str, float]:
        """Figures for tracking."""
        figures = self.figures
        return {
            "rules/fidelity": figures.fidelity.value,
            "rules/coverage": figures.coverage.value,
            "rules/precision": figures.precision.value,
            "rules/f1": figures.f1,
            "rules/n_rules": float(figures.n_rules),
            "rules/conflicts": float(len(figures.conflicts)),
            "rules/gaps": float(len(figures.gaps)),
        }


def teacher_of(subject: Subject, places: NDArray[np.intp]) -> Teacher:
    """Return what a subject's model decides on rows, and by how much.

    Raises:
        ExplanationError: Without thresholds or scores.
    """
    decided = subject.facts.decided
    if not subject.thresholds or decided is None:
        raise ExplanationError("rules need decisions: say from which score by --review-at")
    # Not the numbers themselves: mining clips margins at 2, which suits log-odds.
    scores, at = decided[places], dict(subject.thresholds)
    if decided.min() >= 0 and decided.max() <= 1:
        scores = logit(scores)
        at = {name: float(logit(np.array([v]))[0]) for name, v in at.items()}
    review = min(at.values())
    return Teacher.from_scores(scores, review, at.get("block", np.inf))


def in_time(subject: Subject, places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return rows in the order of time; rows without instants in theirs."""
    times = subject.facts.times
    return places if times is None else places[np.argsort(times[places], kind="stable")]


def mine_subject(
    subject: Subject, places: NDArray[np.intp], config: MineConfig, *, version: str = ""
) -> MinedRules:
    """Mine rules from a subject's decisions on its older rows and measure them on the newer ones.

    Args:
        subject: Model and rows; rows without instants are taken in their order.
        places: Rows to use, in the order of time.
        config: How rules are mined.
        version: Of the set; empty: the day of the newest row it is mined from, of rows without
            instants the first digits of their digest. Editions are told apart by it.

    Raises:
        ExplanationError: Without thresholds or scores.
        RuleSetError: When the model flags no row or every row, or no rule is good enough.
    """
    places = in_time(subject, places)
    teacher = teacher_of(subject, places)
    cut = max(1, round(len(places) * (1 - UNSEEN)))
    older, newer = places[:cut], places[cut:]
    rules = mine(
        subject.rows[older],
        subject.background.names,
        Teacher(teacher.decisions[:cut], teacher.margins[:, :cut]),
        config,
        name=subject.title,
        version=version or _version(subject, older),
        model_digest=subject.model.digest,
    )
    figures = measure(rules, subject.rows[newer], teacher.decisions[cut:])
    return MinedRules(rules, figures, len(older), len(newer))


def _version(subject: Subject, older: NDArray[np.intp]) -> str:
    times = subject.facts.times
    if times is None:
        return table_digest(subject.rows[older], subject.background.names)[:8]
    return datetime.fromtimestamp(int(times[older[-1]]) / 1000, UTC).date().isoformat()


def write_rules(mined: MinedRules, folder: Path, *, table: str) -> list[Path]:
    """Write a set as text with its figures, JSON, ANSI SQL and Flink SQL.

    Args:
        mined: The set.
        folder: Made if absent.
        table: Name of the table in the queries.
    """
    texts = (
        to_text(mined.rules, mined.figures),
        to_json(mined.rules),
        ansi_sql(mined.rules, table) + "\n",
        flink_sql(mined.rules, table) + "\n",
    )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in zip(FILES, texts, strict=True):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written
