"""From a promise to thresholds: OK below, NG above, a person in between.

Scores below ``ok_below`` pass, so escapes are promised by the k-th lowest of the defective parts;
scores from ``ng_from`` on are rejected, so false rejects are promised by the number just above the
k-th highest of the good ones. Equal scores lie on the safe side of either. Both numbers are rounded
to float32, to the safe side, so that a file that holds them as such decides the same.

A lower ``ok_below`` or a higher ``ng_from`` keeps every promise that the given ones keep. So where
the two cross, any one threshold between them keeps both, and the lower is taken: an escape usually
costs more than a false reject. A side without a promise is left to a person: its threshold is
infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.defects.judgement import Thresholds
from tasks.defects.promise.bounds import (
    average_needed,
    average_rank,
    bound,
    check_share,
    needed,
    rank,
    slack,
)
from tasks.defects.promise.parts import Floats, Per, Scored, Side, part_scores

LEAST_NORMAL = float(np.finfo(np.float32).tiny)
"""Processors that are told to be quick take smaller float32 numbers for 0."""
Source = Literal["held-out", "out-of-fold"]


@dataclass(frozen=True, slots=True)
class Promise:
    """What is asked for.

    Attributes:
        max_escape: Share of defective parts that may be passed as OK, None for no promise.
        max_false_reject: Share of good parts that may be rejected as NG, None for no promise.
        confidence: Of each of the two, over draws of the calibration parts; both hold at once with
            at least 1 - 2 (1 - confidence).
        average: The weaker promise: the share in the mean over draws of the calibration parts. It
            needs a third of the parts, and a single draw does worse nearly every second time.
        per: What counts of a part with several images; see `tasks.defects.promise.parts`.
        by_type: Escapes of every type of defect at once, each at a level divided by the number of
            types (Bonferroni); else of the mix of types that was calibrated with.
        source: ``held-out`` scores are of parts used neither to train nor to choose the model.
            ``out-of-fold`` ones come from models trained without those parts, which are not the
            model that will judge: what holds then is an estimate, and is called one.
        review: Whether there are people to look. If not, what is not OK is NG, or the reverse.
    """

    max_escape: float | None = None
    max_false_reject: float | None = None
    confidence: float = 0.95
    average: bool = False
    per: Per = "every image"
    by_type: bool = False
    source: Source = "held-out"
    review: bool = True

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.max_escape is None and self.max_false_reject is None:
            raise ValueError("nothing is promised; give max_escape, max_false_reject, or both")
        for name in ("max_escape", "max_false_reject"):
            if (share := getattr(self, name)) is not None:
                check_share(name, share)
        check_share("confidence", self.confidence)
        if self.by_type and self.max_escape is None:
            raise ValueError("only escapes are promised by type; give max_escape")
        for name, known in (
            ("per", ("every image", "one image", "part")),
            ("source", ("held-out", "out-of-fold")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give one of {known}")


@dataclass(frozen=True, slots=True)
class Kept:
    """One side of a promise, kept.

    Attributes:
        side: Which error.
        kind: Type of defect, "" for all.
        alpha: Share promised.
        confidence: Of this one; 0 for a promise in the mean.
        parts: Calibration parts.
        rank: The threshold is at this place, counted from the worst; ``rank - 1`` lie beyond.
        bound: The least share that this place promises; at most ``alpha``.
        threshold: Scores below it pass, or from it on are rejected.
    """

    side: Side
    kind: str
    alpha: float
    confidence: float
    parts: int
    rank: int
    bound: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Promised:
    """Thresholds, and why.

    Attributes:
        thresholds: Where the verdicts part.
        promise: What was asked for.
        kept: Each side, and each type, with its own threshold.
        crossed: Whether one threshold keeps both sides, so that nobody need look.
    """

    thresholds: Thresholds
    promise: Promise
    kept: tuple[Kept, ...]
    crossed: bool


class TooFewPartsError(ValueError):
    """A promise that so few parts cannot carry.

    Attributes:
        missing: How many parts are missing, by what: ``defective parts``, ``good parts``, or
            ``defective parts of type X``.
    """

    def __init__(self, message: str, missing: Mapping[str, int]) -> None:
        super().__init__(message)
        self.missing = dict(missing)


def promised_thresholds(
    promise: Promise, ng: Scored | None = None, ok: Scored | None = None, *, seed: int = 0
) -> Promised:
    """Return thresholds that keep a promise.

    Args:
        promise: What is asked for.
        ng: Defective images, needed for ``max_escape``.
        ok: Good images, needed for ``max_false_reject``.
        seed: Draws the image of each part where one image is promised.

    Raises:
        TooFewPartsError: With what is missing, and what could be promised instead.
        ValueError: A defect without a type where types are promised; two promises without review
            that no single threshold keeps.
    """
    sides: list[tuple[Side, float, str, Scored]] = []
    if promise.max_escape is not None:
        defects = Scored(np.empty(0), ()) if ng is None else ng
        kinds = (sorted(set(defects.kinds)) or [""]) if promise.by_type else []
        if len(defects) and "" in kinds:
            raise ValueError("by_type needs a type for every defective image; name them all")
        escapes = [(kind, defects.of_kind(kind)) for kind in kinds if kind] or [("", defects)]
        sides += [("escape", promise.max_escape, kind, images) for kind, images in escapes]
    if promise.max_false_reject is not None:
        images = Scored(np.empty(0), ()) if ok is None else ok
        sides.append(("false reject", promise.max_false_reject, "", images))
    types = max(sum(side == "escape" for side, *_ in sides), 1)
    short: list[tuple[str, int, str]] = []
    kept: list[Kept] = []
    for side, alpha, kind, images in sides:
        scores = part_scores(images, side, promise.per, seed)
        found = _kept(promise, side, alpha, kind, scores, types if side == "escape" else 1)
        if isinstance(found, Kept):
            kept.append(found)
        else:
            short.append(found)
    if short:
        raise TooFewPartsError(
            "; ".join(text for *_, text in short), {what: count for what, count, _ in short}
        )
    return _joined(promise, kept)


def _kept(
    promise: Promise, side: Side, alpha: float, kind: str, scores: Floats, shared_by: int
) -> Kept | tuple[str, int, str]:
    """Return a side kept, or what is missing, how much of it, and the refusal in words."""
    n = len(scores)
    confidence = 1.0 - slack(promise.confidence) / shared_by
    if promise.average:
        k, least = average_rank(n, alpha), average_needed(alpha)
        reach = k / (n + 1)
    else:
        k, least = rank(n, alpha, confidence), needed(alpha, confidence)
        reach = bound(n, k, confidence)
    if k:
        at = _threshold(side, scores, k)
        sure = 0.0 if promise.average else confidence
        return Kept(side, kind, alpha, sure, n, k, reach, at)
    what = ("defective" if side == "escape" else "good") + " parts"
    what += f" of type {kind}" if kind else ""
    name = "max_escape" if side == "escape" else "max_false_reject"
    how = "in the mean" if promise.average else f"at {confidence:.6g} confidence"
    others = f"label {least - n:,} more"
    honest = _up(1 / (n + 1) if promise.average else bound(n, min(n, 1), confidence))
    if honest < 1:
        others += f", promise no less than {honest:.4g} with these {n:,}"
    if not promise.average:
        enough = "for which these are enough" if average_rank(n, alpha) else ""
        others += ", or take the weaker average=True, "
        others += enough or f"which needs {average_needed(alpha):,}"
    return (
        what,
        least - n,
        f"{name}={alpha:g} {how} needs {least:,} {what}, and {n:,} are there: {others}",
    )


def _threshold(side: Side, scores: Floats, k: int) -> float:
    """Return the k-th worst score as a float32 that errs to the safe side."""
    place = k - 1 if side == "escape" else len(scores) - k
    exact = float(np.partition(scores, place)[place])
    with np.errstate(over="ignore"):
        near = np.float32(exact)
    if side == "escape":
        found = np.nextafter(near, np.float32(-np.inf)) if float(near) > exact else near
        return _normal(float(found), np.floor)
    # Rejected is what lies at the threshold, too: it must lie above the score, as float32 as well.
    return _normal(float(np.nextafter(near, np.float32(np.inf))), np.ceil)


def _normal(threshold: float, towards: Callable[[float], float]) -> float:
    """Return the threshold, or the next number that no processor takes for 0."""
    share = threshold / LEAST_NORMAL
    return float(towards(share)) * LEAST_NORMAL if abs(share) < 1 else threshold


def _joined(promise: Promise, kept: list[Kept]) -> Promised:
    escape = min((one.threshold for one in kept if one.side == "escape"), default=-np.inf)
    reject = max((one.threshold for one in kept if one.side == "false reject"), default=np.inf)
    crossed = escape >= reject
    if crossed:
        escape = reject
    elif not promise.review:
        if promise.max_escape is not None and promise.max_false_reject is not None:
            raise ValueError(
                f"no single threshold keeps both promises: OK must lie below {escape:g}, NG from "
                f"{reject:g} on; give review=True, promise less, or mend the model"
            )
        escape = reject = reject if promise.max_escape is None else escape
    return Promised(Thresholds(float(escape), float(reject)), promise, tuple(kept), crossed)


def _up(share: float) -> float:
    """Return a share rounded up to four decimals, so that it can be promised as it is told."""
    return float(np.ceil(share * 1e4) / 1e4)
