"""Mines a small rule set that reproduces a model's decisions.

Small trees grown on the margins of the scores give candidates; for blocked rows first, then for
all flagged ones, those are chosen whose union has the best F1. A row so near the threshold that it
might as well lie beyond counts less. Conditions that held-out rows do not need are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.rules.candidates import Path, grow_paths, holds_where, readable
from tasks.explain.rules.choose import Cover, choose
from tasks.explain.rules.engine import Bools
from tasks.explain.rules.model import Condition, Rule, RuleSet, RuleSetError, table_digest
from tasks.explain.rules.teacher import Teacher

Reals = NDArray[np.float64]

BAND = 2.0
"""Margins are clipped here: how far beyond a row lies is nothing that rules must tell."""

SHORTER = 1e-3
"""F1 that a condition less may cost."""


@dataclass(frozen=True, slots=True)
class MineConfig:
    """Settings of the miner.

    Attributes:
        max_rules: Most rules.
        max_block_rules: Most of them that block; one is always left for reviews.
        max_conditions: Most conditions of a rule.
        min_support: Fewest flagged rows that a rule must cover.
        min_precision: Least share of flagged rows among those it covers.
        held_out: Share of the rows that trees are not grown on, by which rules are pruned.
        far_share: Share kept of rows more than ``BAND`` below the threshold; they stand for all.
        doubt: Margin below which a row counts less, in proportion.
        seed: Of the draws.
    """

    max_rules: int = 30
    max_block_rules: int = 8
    max_conditions: int = 6
    min_support: int = 15
    min_precision: float = 0.5
    held_out: float = 0.3
    far_share: float = 0.15
    doubt: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            RuleSetError: On a setting that cannot be.
        """
        if min(self.max_rules, self.max_conditions, self.min_support) < 1:
            raise RuleSetError("max_rules, max_conditions and min_support must be at least 1")
        if self.max_block_rules < 0:
            raise RuleSetError("max_block_rules must not be negative; write 0 for none")
        if not (0 < self.min_precision <= 1 and 0 < self.held_out < 1 and 0 < self.far_share <= 1):
            raise RuleSetError("min_precision, held_out and far_share must lie between 0 and 1")
        if self.doubt < 0:
            raise RuleSetError(f"doubt must not be negative, got {self.doubt}")


@dataclass(frozen=True)
class _Table:
    """The rows that are looked at.

    Attributes:
        columns: float64 [F, m], NaN where a value is not finite.
        margin: float64 [m], of the decision at hand.
        weights: float64 [m], how many rows each stands for.
        held_out: bool [m].
    """

    columns: Reals
    margin: Reals
    weights: Reals
    held_out: Bools


def mine(
    rows: NDArray[np.float32],
    names: Sequence[str],
    teacher: Teacher,
    config: MineConfig | None = None,
    *,
    importance: Reals | None = None,
    name: str = "rules",
    version: str = "1",
    model_digest: str = "",
) -> RuleSet:
    """Mine rules from what a model decides on rows; labels are not asked for.

    Args:
        rows: float32 [n, F]; values that are not finite match no rule.
        names: Names of the F features.
        teacher: The model's decisions on these rows.
        config: Settings.
        importance: float64 [F], such as mean absolute SHAP values, of features to prefer.
        name: Of the set.
        version: Of the set.
        model_digest: Digest of the model, for the lineage.

    Raises:
        RuleSetError: On shapes that do not fit, a model that flags no row or every row, or when no
            rule is good enough.
    """
    settings = config or MineConfig()
    check_mining(rows, names, teacher, importance)
    draws = np.random.default_rng(settings.seed)
    near = teacher.margins[0] > -BAND
    taken = np.flatnonzero(near | (draws.random(len(rows)) < settings.far_share))
    values = rows[taken].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    columns = np.ascontiguousarray(values.T)
    weights = np.where(near[taken], 1.0, 1.0 / settings.far_share)
    held_out = draws.random(len(taken)) < settings.held_out
    review, block = (
        _Table(columns, margin[taken], weights, held_out) for margin in teacher.margins
    )
    blocking: list[Path] = []
    if (block.margin >= 0).any():
        most = min(settings.max_block_rules, settings.max_rules - 1)
        blocking = _stage(block, most, settings, importance, ())
    reviewing = _stage(review, settings.max_rules - len(blocking), settings, importance, blocking)
    found: dict[str, Rule] = {}
    for path in (*blocking, *reviewing):
        rule = Rule(
            tuple(
                Condition(names[place], ">" if above else "<=", value)
                for place, above, value in readable(path, columns)
            ),
            "block" if path in blocking else "review",
        )
        found.setdefault(rule.id, rule)
    if not found:
        raise RuleSetError(
            f"no rule covers {settings.min_support} flagged rows with precision "
            f"{settings.min_precision:g}: lower min_support or min_precision, or pass more rows"
        )
    digest = table_digest(rows, names)
    return RuleSet(name, version, tuple(names), tuple(found.values()), digest, model_digest)


def check_mining(
    rows: NDArray[np.float32],
    names: Sequence[str],
    teacher: Teacher,
    importance: Reals | None = None,
) -> None:
    """Check what is to be mined from.

    Raises:
        RuleSetError: On shapes that do not fit, or a model that flags no row or every row.
    """
    if rows.ndim != 2 or rows.shape[1] != len(names) or len(rows) != len(teacher.decisions):
        raise RuleSetError(
            f"rows have shape {rows.shape} for {len(names)} names and {len(teacher.decisions)} "
            "decisions; pass one row for each decision and one column for each name"
        )
    flagged = int((teacher.decisions > 0).sum())
    if flagged in {0, len(rows)}:
        raise RuleSetError(
            f"the model flags {flagged} of {len(rows)} rows: there is nothing to tell apart; pass "
            "more rows, or another threshold"
        )
    if importance is not None and not (
        importance.shape == (len(names),)
        and np.isfinite(importance).all()
        and importance.min() >= 0 < importance.max()
    ):
        raise RuleSetError(
            "importance must hold one number for each feature, none negative, not all zero"
        )


def _stage(
    table: _Table,
    most: int,
    settings: MineConfig,
    importance: Reals | None,
    given: Sequence[Path],
) -> list[Path]:
    """Return the paths chosen for one decision, beside those given, pruned."""
    if most < 1:
        return []
    grown = ~table.held_out
    paths = grow_paths(
        table.columns[:, grown].T.astype(np.float32),
        np.clip(table.margin[grown], -BAND, BAND),
        table.weights[grown],
        settings.max_conditions,
        settings.seed,
        importance,
    )
    doubt = max(settings.doubt, 1e-300)
    certainty = table.weights * np.minimum(1.0, np.abs(table.margin) / doubt)
    kept, cover = _covered([*given, *paths], len(given), table, certainty, settings)
    chosen = [kept[place] for place in choose(cover, most, range(len(given)))]
    return _pruned(chosen, given, table, certainty)


def _covered(
    paths: Sequence[Path], given: int, table: _Table, certainty: Reals, settings: MineConfig
) -> tuple[list[Path], Cover]:
    """Return the paths worth choosing from, the first ``given`` whatever they are worth."""
    flagged = table.margin >= 0
    wanted, others = (np.ascontiguousarray(table.columns[:, one]) for one in (flagged, ~flagged))
    weights, worst = table.weights[~flagged], 1 / settings.min_precision - 1
    kept, hits, false = [], [], []
    for place, path in enumerate(paths):
        hit = holds_where(path, wanted)
        if place >= given and hit.sum() < settings.min_support:
            continue
        miss = holds_where(path, others)
        if place < given or weights[miss].sum() <= worst * hit.sum():
            kept.append(path)
            hits.append(hit)
            false.append(np.packbits(miss))
    width = len(weights)
    covers = np.zeros((len(kept), width), dtype=np.bool_)
    for place, packed in enumerate(false):
        covers[place] = np.unpackbits(packed, count=width).astype(np.bool_)
    touched = covers.any(axis=0)
    return kept, Cover(
        np.array(hits, dtype=np.float32).reshape(len(kept), int(flagged.sum())),
        covers[:, touched].astype(np.float32),
        certainty[flagged],
        certainty[~flagged][touched],
    )


def _pruned(
    chosen: Sequence[Path], given: Sequence[Path], table: _Table, certainty: Reals
) -> list[Path]:
    """Drop conditions while precision on held-out rows and F1 of the union hold."""
    flagged = table.margin >= 0
    paths = list(chosen)
    masks = [holds_where(path, table.columns) for path in paths]
    fixed = np.zeros(len(flagged), dtype=np.bool_)
    for path in given:
        fixed |= holds_where(path, table.columns)

    def f1(place: int, mask: Bools) -> float:
        found = fixed | mask
        for other, one in enumerate(masks):
            if other != place:
                found = found | one
        hits = certainty[found & flagged].sum()
        return float(2 * hits / max(certainty[found].sum() + certainty[flagged].sum(), 1e-300))

    for place in range(len(paths)):
        while len(paths[place]) > 1:
            before = _precision(masks[place], flagged, table)
            floor = f1(place, masks[place]) - SHORTER
            options = []
            for cut in paths[place]:
                shorter = tuple(one for one in paths[place] if one != cut)
                mask = holds_where(shorter, table.columns)
                precision = _precision(mask, flagged, table)
                if precision >= before and f1(place, mask) >= floor:
                    options.append((precision, shorter, mask))
            if not options:
                break
            _, paths[place], masks[place] = max(options, key=lambda one: one[0])
    return list(dict.fromkeys(paths))


def _precision(mask: Bools, flagged: Bools, table: _Table) -> float:
    """Return precision on held-out rows; 0 where none matches."""
    held = mask & table.held_out
    total = table.weights[held].sum()
    return float(table.weights[held & flagged].sum() / total) if total else 0.0
