"""Decides which images of a folder are set aside, and says what could not be judged.

Without a reference only what is certain is set aside: files that do not decode, copies, another
size than nearly all have, wholly black or white images. Blur, exposure, and the camera are judged
by a reference of the line alone, since good images of two lines differ more than good and bad ones
of one line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.likeness import LikenessConfig, Twin, twins
from tasks.cleaning.images.reference import WRONG_SIZE, ImageReference, size_of, uniform
from tasks.cleaning.images.sandbox import MeasuredImage
from tasks.cleaning.quarantine import Rule, Severity

VERSION = "images/1"
LEAST_FOR_MAJORITY = 10
COPY, NEAR_COPY, UNIFORM = "duplicate-of", "near-duplicate-of", "uniform"
NEEDS_REFERENCE = ("blur", "exposure", "camera")
Outcome = MeasuredImage | ImageRefusedError


@dataclass(frozen=True, slots=True)
class ImageCheckConfig:
    """How images are checked.

    Attributes:
        alpha: Share of good images that the reference's test may flag.
        likeness: When two images are near duplicates.
        majority: Share of the images that must have one size before another size is wrong; used
            without a reference only.
    """

    alpha: float = 0.01
    likeness: LikenessConfig = field(default_factory=LikenessConfig)
    majority: float = 0.9

    def __post_init__(self) -> None:
        """Refuse shares outside of 0 to 1."""
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha is {self.alpha}; it must lie between 0 and 1, such as 0.01")
        if not 0.5 < self.majority <= 1.0:
            raise ValueError(f"majority is {self.majority}; it must lie between 0.5 and 1")


@dataclass(frozen=True, slots=True)
class Flag:
    """Why an image is set aside.

    Attributes:
        rule: For the quarantine record.
        observed: What was found.
    """

    rule: Rule
    observed: str


@dataclass(frozen=True, slots=True)
class CheckedImages:
    """What the checks say of a folder.

    Attributes:
        flags: Place of an image -> why it is set aside; all others are clean.
        p: p-value against the reference by place; None where it was not judged.
        twins: Place -> which image it repeats.
        findings: ``FINDINGS`` of the flags, row = place.
        not_judged: Checks that were not made, with the reason.
        promised: Share of good images that the reference's test flags at most; None without one.
    """

    flags: dict[int, Flag]
    p: list[float | None]
    twins: dict[int, Twin]
    findings: pl.DataFrame
    not_judged: dict[str, str]
    promised: float | None


def check_images(
    names: Sequence[str],
    outcomes: Sequence[Outcome],
    reference: ImageReference | None = None,
    config: ImageCheckConfig | None = None,
) -> CheckedImages:
    """Check the images of a folder.

    Quality is judged first, so that of several copies the first good one stays.

    Args:
        names: File of each image, for people.
        outcomes: What decoding gave for each, in the order that decides which copy stays.
        reference: Good images of the line.
        config: Thresholds.
    """
    config = config or ImageCheckConfig()
    flags: dict[int, Flag] = {}
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageRefusedError):
            flags[place] = _flag(outcome.rule, outcome.observed, outcome.expected)
    seen = {i: one for i, one in enumerate(outcomes) if isinstance(one, MeasuredImage)}
    not_judged: dict[str, str] = {}
    p: list[float | None] = [None] * len(outcomes)
    if reference is None or not reference.black:
        flags |= {
            i: _flag(UNIFORM, _shade(one), "an image with something on it")
            for i, one in seen.items()
            if uniform(one)
        }
    if reference is None:
        not_judged = dict.fromkeys(NEEDS_REFERENCE, "no reference of good images was given")
        wrong, why = _odd_sizes(seen, config.majority)
        flags |= {i: flag for i, flag in wrong.items() if i not in flags}
        if why:
            not_judged["size"] = why
    else:
        alpha = reference.promised(config.alpha)
        judged = reference.judge(list(seen.values()))
        for i, verdict in zip(seen, judged, strict=True):
            p[i] = verdict.p
            if verdict.p <= alpha and i not in flags:
                flags[i] = _flag(
                    verdict.rule, verdict.observed, verdict.expected, confidence=1 - verdict.p
                )
    good = [i for i in seen if i not in flags]
    small = np.array([seen[i].small for i in good]).reshape(-1, 64, 64)
    alike = twins([seen[i].facts["digest"] for i in good], small, config.likeness)
    repeats = {
        good[k]: Twin(good[t.of], t.correlation, t.position, t.exact) for k, t in alike.items()
    }
    for i, twin in repeats.items():
        flags[i] = _copy(names[twin.of], twin)
    return CheckedImages(
        flags=dict(sorted(flags.items())),
        p=p,
        twins=repeats,
        findings=_findings(flags),
        not_judged=not_judged,
        promised=None if reference is None else reference.promised(config.alpha),
    )


def _odd_sizes(seen: dict[int, MeasuredImage], majority: float) -> tuple[dict[int, Flag], str]:
    """Return images of another size than nearly all have, or why there is no such size."""
    sizes = Counter(size_of(one) for one in seen.values())
    if len(seen) < LEAST_FOR_MAJORITY:
        return {}, f"fewer than {LEAST_FOR_MAJORITY} images"
    usual, number = sizes.most_common(1)[0]
    if number < majority * len(seen):
        return {}, f"no size that {majority:.0%} of the images have"
    return {
        i: _flag(WRONG_SIZE, size_of(one), f"{usual}, as {number:,} of {len(seen):,} images")
        for i, one in seen.items()
        if size_of(one) != usual
    }, ""


def _copy(name: str, twin: Twin) -> Flag:
    if twin.exact:
        return _flag(COPY, f"the pixels of {name}", "pictures that occur once", warning=True)
    return _flag(
        NEAR_COPY,
        f"{name}, {twin.position}; detail correlates {twin.correlation:.2f}",
        "pictures that occur once",
        confidence=twin.correlation,
        warning=True,
    )


def _flag(
    rule: str, observed: str, expected: str, *, confidence: float = 1.0, warning: bool = False
) -> Flag:
    severity: Severity = "warning" if warning else "error"
    return Flag(Rule(rule, expected, severity, VERSION, confidence), observed)


def _shade(image: MeasuredImage) -> str:
    f = image.features
    return f"{f['dark_share']:.1%} black, {f['light_share']:.1%} white, 98 % at {f['p50']:.0f}"


def _findings(flags: dict[int, Flag]) -> pl.DataFrame:
    rows = [
        {
            "row": i,
            "column": "",
            "rule": flag.rule.name,
            "observed": flag.observed,
            "expected": flag.rule.expected,
            "confidence": flag.rule.confidence,
            "detector_version": VERSION,
        }
        for i, flag in flags.items()
    ]
    return joined([findings_of(pl.DataFrame(rows))] if rows else [])
