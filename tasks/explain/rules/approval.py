"""An edition goes live only after a trial over history, and only as it was tried.

A trial runs the edition over rows that a model has decided. Its record names the edition by the
digest of its JSON, the edition before it, the history and the limits, and is written beside it.
Whoever runs rules asks `require_approval`: an edition edited after its trial is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.explain.rules.compare import compare
from tasks.explain.rules.edition import Rules, edition_digest
from tasks.explain.rules.engine import checked_codes
from tasks.explain.rules.files import checked_keys, parsed
from tasks.explain.rules.measure import agreement
from tasks.explain.rules.model import RuleSetError, table_digest
from tasks.explain.rules.scorecard import decide


class NotApprovedError(RuleSetError):
    """An edition that must not go live; says what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an edition must keep to.

    Attributes:
        least_precision: Of flagged rows against the model's decisions.
        least_coverage: Of the rows that the model flags.
        most_flagged: Largest share of all rows that may be flagged.
        most_changed: Largest share of all rows that may be decided otherwise than before.
        most_vetoed: Largest share of the rows that the model flags and the edition approves; only
            an edition within it may veto.
    """

    least_precision: float = 0.5
    least_coverage: float = 0.0
    most_flagged: float = 0.05
    most_changed: float = 0.01
    most_vetoed: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            RuleSetError: On a limit that is no share.
        """
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise RuleSetError(f"{name} {value} must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a run over history found.

    Attributes:
        name: Of the rules.
        version: Of the edition.
        digest: SHA-256 of its JSON.
        before: Digest of the edition in force, "" for the first.
        model: Digest of the model that decided the rows, "" when not told.
        thresholds: Scores from which it did, by decision.
        history: Digest of the rows.
        rows: Their number.
        precision: Of flagged rows against the model's decisions; NaN is written as null.
        coverage: Of the rows that the model flags.
        flagged: Share of all rows that it flags.
        changed: Share decided otherwise than before, 0 for the first edition.
        vetoed: Share of the rows that the model flags and the edition approves; null without one.
        limits: What it had to keep to.
        tried_by: Who answers for it.
    """

    name: str
    version: str
    digest: str
    before: str
    model: str
    thresholds: Mapping[str, float]
    history: str
    rows: int
    precision: float | None
    coverage: float | None
    flagged: float
    changed: float
    vetoed: float | None
    limits: Limits
    tried_by: str

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each limit broken; none: it may go live."""
        limits, found = self.limits, []
        for name, limit in (("precision", limits.least_precision),
                            ("coverage", limits.least_coverage)):  # fmt: skip
            value: float | None = getattr(self, name)
            if value is not None and value < limit:
                found.append(f"{name} {value:.4f} is below the limit {limit:g}")
        if self.coverage is None and limits.least_coverage > 0:
            found.append("coverage is not known, as the model flags none of the rows: try others")
        # Without a flagged row there is no precision to be too low.
        for name, limit in (("flagged", limits.most_flagged), ("changed", limits.most_changed)):
            value = getattr(self, name)
            if value > limit:
                found.append(f"{name} {value:.4f} is above the limit {limit:g}")
        return tuple(found)

    @property
    def may_veto(self) -> bool:
        """Whether the edition kept to the limit of vetoes."""
        return self.vetoed is not None and self.vetoed <= self.limits.most_vetoed

    def covers(self, thresholds: Mapping[str, float]) -> bool:
        """Whether what a model decides from these scores is no graver than what was tried.

        From lower scores it flags rows whose veto no trial has seen.
        """
        tried = self.thresholds
        return bool(tried) and all(
            at >= tried.get(decision, math.inf) for decision, at in thresholds.items()
        )

    def to_json(self) -> str:
        """Return the record as JSON text."""
        data = {**asdict(self), "failures": self.failures}
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def try_edition(
    new: Rules,
    rows: NDArray[np.float32],
    model: ArrayLike,
    tried_by: str,
    old: Rules | None = None,
    limits: Limits | None = None,
    *,
    model_digest: str = "",
    thresholds: Mapping[str, float] | None = None,
) -> Trial:
    """Run an edition over history and judge it by limits.

    Args:
        new: The edition that shall go live.
        rows: float32 [n, F], history.
        model: [n] places in ``DECISIONS``, what the model decided then.
        tried_by: Who answers for it.
        old: The edition in force; it must have another version.
        limits: What the new one must keep to.
        model_digest: Digest of that model; without it no edition may veto in its place.
        thresholds: Scores from which it decided, by decision; the same.

    Raises:
        RuleSetError: On shapes that do not fit, no name, a version used before, or editions of
            different kinds or features.
    """
    if not tried_by:
        raise RuleSetError("a trial needs the name of who answers for it; pass tried_by")
    asked = limits or Limits()
    said, given = decide(new, rows), checked_codes(model, len(rows))
    found = agreement(new.features, rows.astype(np.float64), said, given)
    changed = 0.0 if old is None else _changed(old, new, rows)
    flagged = float((said > 0).mean())
    by_model = given > 0
    vetoed = float((said[by_model] == 0).mean()) if by_model.any() else None
    precision, coverage = found.precision.value, found.coverage.value
    return Trial(
        new.name,
        new.version,
        edition_digest(new),
        "" if old is None else edition_digest(old),
        model_digest,
        dict(thresholds or {}),
        table_digest(rows, new.features),
        len(rows),
        None if np.isnan(precision) else precision,
        None if np.isnan(coverage) else coverage,
        flagged,
        changed,
        vetoed,
        asked,
        tried_by,
    )


def require_approval(rules: Rules, record: str) -> Trial:
    """Refuse an edition that has not passed its trial as it is now.

    Args:
        rules: What is to run.
        record: JSON of its trial.

    Returns:
        The trial.

    Raises:
        NotApprovedError: When the record is of another text, or names failures.
        RuleSetError: On a text that is no record.
    """
    data: Any = parsed(record)
    known = {*Trial.__slots__, "failures"}
    checked_keys(data, known, known, "the trial")
    trial = _read(data)
    if data["digest"] != edition_digest(rules):
        raise NotApprovedError(
            f"{rules.name} version {rules.version} is not what was tried (version "
            f"{data['version']}): it was edited since; run the trial again"
        )
    if trial.failures:
        raise NotApprovedError(
            f"{rules.name} version {rules.version} failed its trial: "
            f"{'; '.join(trial.failures)}; edit the rules and try them again"
        )
    return trial


def _read(data: Any) -> Trial:
    limits, thresholds = data["limits"], data["thresholds"]
    checked_keys(limits, set(Limits.__slots__), set(Limits.__slots__), "limits of the trial")
    numbers = [*limits.values(), data["flagged"], data["changed"]]
    numbers += [data[key] for key in ("precision", "coverage", "vetoed") if data[key] is not None]
    numbers += thresholds.values() if isinstance(thresholds, dict) else [None]
    told = all(type(value) in {int, float} for value in numbers)
    if not (told and isinstance(data["model"], str)):
        raise RuleSetError("the trial is no record that `try_edition` wrote; run the trial again")
    # What it says of failures is for people; they follow from its figures and limits.
    figures = {key: value for key, value in data.items() if key != "failures"}
    return Trial(**{**figures, "limits": Limits(**limits)})


def _changed(old: Rules, new: Rules, rows: NDArray[np.float32]) -> float:
    if old.version == new.version and edition_digest(old) != edition_digest(new):
        raise RuleSetError(
            f"two editions are called version {new.version!r}; give the new one another version"
        )
    found = compare(old, new, rows)
    return found.changed / found.rows
