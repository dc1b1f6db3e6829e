"""Fits a scorecard of graded rules to a model's decisions.

Rules are grown where the scorecard errs most, as in boosting (Friedman and Popescu 2008), but all
of them are fitted anew together: points, ends of ramps and cutoffs by gradients, which a degree
has and a step has not. What is fitted is the model's decision softened by a temperature (Hinton,
Vinyals and Dean, "Distilling the knowledge in a neural network", 2015): rows near a threshold
decide, rows far from it hardly count. A model that can be asked labels made-up rows, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.rules.candidates import Grower, Path, grow_paths, holds_where
from tasks.explain.rules.mine import check_mining
from tasks.explain.rules.model import RuleSetError, table_digest
from tasks.explain.rules.ramps import Ramps, Target
from tasks.explain.rules.scorecard import CUTOFFS, GradedRule, Ramp, Scorecard, run_scorecard
from tasks.explain.rules.teacher import Teacher

Reals = NDArray[np.float64]
Floats = NDArray[np.float32]
Label = Callable[[Floats], Teacher]

POINTS = 100
"""Points of one log-odds."""

FAR = 3.0
"""Log-odds below the threshold of review beyond which rows are thinned, and made rows left out."""

FAR_SHARE = 0.15
"""Share of the rows far below that is kept."""

FAR_WEIGHT = 2.0
"""What each of them stands for; less than all those left out, which are easy to tell."""

MADE_WEIGHT = 0.5
"""Of a made row beside a real one."""

GROWER = Grower(3, 3, columns=0.7)
GROWN_ON = 30_000
"""Most rows that trees are grown on each time."""

AT_ONCE = 3
"""Rules added before all are fitted anew."""


@dataclass(frozen=True, slots=True)
class ScorecardConfig:
    """Settings of the fit.

    Attributes:
        max_rules: Most rules, the two cutoffs counted.
        max_conditions: Most conditions of a rule.
        made_rows: Rows made up and labelled by the model, where it can be asked.
        temperature: Log-odds by which decisions are softened.
        grow_steps: Steps of fitting after each addition.
        steps: Steps of fitting at the end.
        batch: Rows of a step.
        seed: Of the draws.
    """

    max_rules: int = 30
    max_conditions: int = 3
    made_rows: int = 60_000
    temperature: float = 0.3
    grow_steps: int = 120
    steps: int = 1_500
    batch: int = 2_048
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            RuleSetError: On a setting that cannot be.
        """
        if self.max_rules <= CUTOFFS:
            raise RuleSetError(f"max_rules {self.max_rules}: {CUTOFFS} are cutoffs; allow more")
        if min(self.max_conditions, self.grow_steps, self.steps, self.batch) < 1:
            raise RuleSetError("max_conditions, grow_steps, steps and batch must be at least 1")
        if self.made_rows < 0 or not self.temperature > 0:
            raise RuleSetError("made_rows must not be negative, temperature above 0")


def parts_of(names: Sequence[str]) -> list[list[int]]:
    """Return places of features that share what stands before the first dot; others are no part.

    Example:
        >>> parts_of(["amount", "card.n", "shop.n", "card.mean"])
        [[1, 3], [2]]
    """
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if "." in name:
            found.setdefault(name.split(".")[0], []).append(place)
    return list(found.values())


def fit_scorecard(
    rows: Floats,
    names: Sequence[str],
    teacher: Teacher,
    config: ScorecardConfig | None = None,
    *,
    label: Label | None = None,
    parts: Sequence[Sequence[int]] | None = None,
    name: str = "scorecard",
    version: str = "1",
    model_digest: str = "",
) -> Scorecard:
    """Fit a scorecard to what a model decides on rows; true labels are not asked for.

    Args:
        rows: float32 [n, F]; values that are not finite add nothing.
        names: Names of the F features.
        teacher: The model's decisions on these rows.
        config: Settings.
        label: The model, which is then asked about made-up rows: real ones near its threshold, one
            part of each taken from another row.
        parts: Places of features that belong together; default `parts_of`.
        name: Of the scorecard.
        version: Of it.
        model_digest: Digest of the model, for the lineage.

    Raises:
        RuleSetError: On shapes that do not fit, or a model that flags no row or every row.
    """
    settings = config or ScorecardConfig()
    check_mining(rows, names, teacher)
    draws = np.random.default_rng(settings.seed)
    values, margins, weights = _thinned(rows, teacher, draws)
    groups = parts_of(names) if parts is None else parts
    if label is not None and groups and settings.made_rows:
        made, told = _made(rows, teacher, label, groups, settings.made_rows, draws)
        values = np.concatenate([values, made])
        margins = np.concatenate([margins, told], axis=1)
        weights = np.concatenate([weights, np.full(len(made), MADE_WEIGHT)])
    ramps = Ramps(values, Target(margins, weights, settings.temperature), settings.seed)
    _grow(ramps, values, settings, draws)
    ramps.fit(settings.steps, settings.batch)
    return _rounded(
        ramps, rows, teacher, tuple(names), (name, version, table_digest(rows, names), model_digest)
    )


def _thinned(
    rows: Floats, teacher: Teacher, draws: np.random.Generator
) -> tuple[Floats, Reals, Reals]:
    """Return rows, margins [2, m] and weights [m]: all near the threshold, few far below."""
    near = teacher.margins[0] > -FAR
    taken = np.flatnonzero(near | (draws.random(len(rows)) < FAR_SHARE))
    weights = np.where(near[taken], 1.0, FAR_WEIGHT)
    return rows[taken], teacher.margins[:, taken], weights


def _made(
    rows: Floats,
    teacher: Teacher,
    label: Label,
    parts: Sequence[Sequence[int]],
    count: int,
    draws: np.random.Generator,
) -> tuple[Floats, Reals]:
    """Return about ``count`` made rows near the threshold or beyond, and their margins [2, m]."""
    near = np.flatnonzero(teacher.margins[0] > -FAR - 1)
    first = draws.choice(near, 2 * count)
    other = np.where(
        draws.random(len(first)) < 0.7,
        draws.choice(near, len(first)),
        draws.integers(0, len(rows), len(first)),
    )
    made = rows[first]
    which = draws.integers(0, len(parts), len(first))
    for number, part in enumerate(parts):
        where = np.flatnonzero(which == number)
        columns = np.asarray(part, dtype=np.intp)
        made[np.ix_(where, columns)] = rows[np.ix_(other[where], columns)]
    margins = label(made).margins
    kept = np.flatnonzero(margins[0] > -FAR)[:count]
    return made[kept], margins[:, kept]


def _grow(
    ramps: Ramps, values: Floats, settings: ScorecardConfig, draws: np.random.Generator
) -> None:
    """Add rules where the ramps err, until there are as many as may be, or nothing to add."""
    most = settings.max_rules - CUTOFFS
    while len(ramps) < most:
        residual = ramps.residual()
        seen = draws.permutation(len(values))[:GROWN_ON]
        weights = ramps.target.weights[seen]
        paths = grow_paths(
            values[seen],
            residual[seen],
            weights,
            settings.max_conditions,
            settings.seed + len(ramps),
            growers=(GROWER,),
        )
        columns = values[seen].T
        chosen = _steepest(paths, columns, residual[seen], weights, min(AT_ONCE, most - len(ramps)))
        if not chosen:
            return
        for path, sign in chosen:
            ramps.add(path, sign)
        ramps.fit(settings.grow_steps, settings.batch)


def _steepest(
    paths: Sequence[Path], columns: Floats, residual: Reals, weights: Reals, most: int
) -> list[tuple[Path, float]]:
    """Return the paths on which the residual is largest, each after those before, and its sign."""
    masks = [holds_where(path, columns) for path in paths]
    left, chosen = residual * weights, []
    for _ in range(min(most, len(paths))):
        sums = np.array([left[mask].sum() for mask in masks])
        counts = np.array([max(float(weights[mask].sum()), 1e-300) for mask in masks])
        best = int(np.argmax(sums**2 / counts))
        if not sums[best]:
            break
        chosen.append((paths[best], float(np.sign(sums[best]))))
        left = left - np.where(masks[best], weights * (sums[best] / counts[best]), 0.0)
    return chosen


def _rounded(
    ramps: Ramps,
    rows: Floats,
    teacher: Teacher,
    names: tuple[str, ...],
    told: tuple[str, str, str, str],
) -> Scorecard:
    """Return the scorecard in whole points and short numbers, its cutoffs the best on real rows."""
    rules: dict[tuple[Ramp, ...], int] = {}
    for conditions, log_odds in ramps.rules():
        key = tuple(one for one in (_short(names[f], empty, full) for f, empty, full in conditions))
        rules[key] = rules.get(key, 0) + round(POINTS * log_odds)
    name, version, data_digest, model_digest = told
    card = Scorecard(
        name,
        version,
        names,
        tuple(GradedRule(key, points) for key, points in rules.items() if points),
        round(POINTS * ramps.base()),
        0,
        0,
        data_digest,
        model_digest,
    )
    total = run_scorecard(card, rows).total
    review = _best_cutoff(total, teacher.margins[0] >= 0)
    block = _best_cutoff(total, teacher.margins[1] >= 0)
    return Scorecard(
        name, version, names, card.rules, card.base, review, max(review, block), *told[2:]
    )


def _short(name: str, empty: float, full: float) -> Ramp:
    """Return a ramp whose ends are short decimals, off by less than half a hundredth of it."""
    width = abs(full - empty)
    digits = 2 - math.floor(math.log10(width))
    return Ramp(name, round(empty, digits), round(full, digits))


def _best_cutoff(total: Reals, wanted: NDArray[np.bool_]) -> int:
    """Return the whole number of points from which F1 of what is wanted is best."""
    if not wanted.any():
        return math.ceil(float(total.max())) + 1
    whole = np.floor(total).astype(np.int64)
    levels, place = np.unique(whole, return_inverse=True)
    found = np.bincount(place, minlength=len(levels))[::-1].cumsum()[::-1]
    hits = np.bincount(place, weights=wanted, minlength=len(levels))[::-1].cumsum()[::-1]
    return int(levels[np.argmax(2 * hits / (found + wanted.sum()))])
