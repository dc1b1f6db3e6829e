"""Which of two inspection models deserves to serve: compared on parts that neither learnt from.

A challenger must tell good and defective parts apart better than the champion beyond doubt. A
first model must only be better than chance beyond doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.promotion import Compare, Verdict
from tasks.defects.bundle.bundle import DefectBundle
from tasks.defects.bundle.parts import digest_of
from tasks.defects.paired import PairedResult, compare_paired
from tasks.defects.samples import Sample, parts_of


@dataclass(frozen=True, slots=True)
class InspectionRules:
    """When a challenger replaces the champion.

    Attributes:
        margin: AUROC by which the lower bound of the difference must exceed 0. A small negative
            value: it must not be worse by more than that.
    """

    margin: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not -0.5 <= self.margin <= 0.5:
            raise ValueError(f"promotion margin {self.margin} must lie in -0.5..0.5")


def on_parts(
    samples: Sequence[Sample], rules: InspectionRules | None = None
) -> Compare[DefectBundle]:
    """Return the comparison that a promotion asks for.

    Args:
        samples: Labelled images; those of parts that a compared model learnt from are left out.
        rules: When the challenger wins.
    """
    chosen = rules or InspectionRules()

    def compare(challenger: DefectBundle, champion: DefectBundle | None, version: str) -> Verdict:
        rival = f"champion (version {version})" if champion else "chance"
        depths = [one.session().facts.bits for one in (challenger, champion) if one]
        if len(set(depths)) > 1:
            reason = (
                f"cannot be compared with the {rival}, which judges images of {depths[1]} bits; "
                f"these have {depths[0]}: a camera of another depth is a line of its own"
            )
            return Verdict(wins=False, reason=reason, rival=rival, figure="auroc")
        seen = learnt(challenger) | (learnt(champion) if champion else set())
        parts = parts_of(samples)
        digests = [digest_of(sample.pixels) for sample in samples]
        known = {part for part, digest in zip(parts, digests, strict=True) if digest in seen}
        kept = [
            (sample, part)
            for sample, part in zip(samples, parts, strict=True)
            if sample.label is not None and part not in known
        ]
        defective = np.array([sample.label == "ng" for sample, _ in kept], dtype=np.bool_)
        names = [part for _, part in kept]
        first = _scores(challenger, kept)
        second = _scores(champion, kept) if champion else np.zeros_like(first)
        try:
            result = compare_paired(defective, names, first, second)
        except ValueError as error:
            reason = f"cannot be compared with the {rival}: {error}"
            return Verdict(wins=champion is None, reason=reason, rival=rival, figure="auroc")
        margin = chosen.margin if champion else 0.0
        return Verdict(
            wins=result.low > margin,
            reason=_sentence(result, rival, margin),
            rival=rival,
            result=result,
            figure="auroc",
        )

    return compare


def learnt(bundle: DefectBundle) -> set[str]:
    """Return the digests of the images that a model was fitted to or calibrated on."""
    used = bundle.images.filter(pl.col("role") != "test")
    return set(used["digest"])


def _scores(bundle: DefectBundle, kept: Sequence[tuple[Sample, str]]) -> NDArray[np.float64]:
    session = bundle.session()
    return np.array([session.judge(sample.pixels).score for sample, _ in kept], dtype=np.float64)


def _sentence(result: PairedResult, rival: str, margin: float) -> str:
    return (
        f"AUROC {result.first:.3f} against {result.second:.3f} of the {rival}, difference "
        f"{result.difference:+.3f} [{result.low:+.3f}, {result.high:+.3f}] on {result.ok_parts} "
        f"good and {result.ng_parts} defective parts (lower bound must exceed {margin:+.3f})"
    )
