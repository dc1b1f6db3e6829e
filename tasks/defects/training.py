"""From labelled samples to everything a bundle holds: fitted, thresholded, judged, exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from kernels.plain_data import finite
from tasks.defects.boxes.labelled import BoxesConfig
from tasks.defects.classify.fit import TypesConfig
from tasks.defects.classify.found import Found, FoundTypes, learn_types
from tasks.defects.contours import boxes_of_heat
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import Detector
from tasks.defects.detect.metrics import auroc, heat_metrics
from tasks.defects.edge.build import EdgeConfig, build_edge
from tasks.defects.edge.format import EdgeFile
from tasks.defects.edge.session import EdgeSession
from tasks.defects.judgement import Judgement, Thresholds
from tasks.defects.plan import PlanConfig
from tasks.defects.promise.bounds import average_needed, check_share, needed
from tasks.defects.promise.cost import CostModel, Costs
from tasks.defects.promise.parts import Scored, scored
from tasks.defects.promise.rates import Rate, escape_rates, false_reject_rate
from tasks.defects.promise.thresholds import Promise, Promised, promised_thresholds
from tasks.defects.promise.words import assumptions, sentences
from tasks.defects.samples import Pixels, Sample
from tasks.defects.scorer import Scorer

USUAL = (0.05, 0.1, 0.2, 0.3)
"""Shares that are promised where nobody asks for one: the least that the parts can carry."""
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class CostConfig:
    """What errors cost, in any one currency, and how many parts are defective.

    Attributes:
        escape: A defective part that passes.
        false_reject: A good one that is rejected.
        review: One that a person looks at.
        prevalence: Share of defective parts on the line.
    """

    escape: float = 100.0
    false_reject: float = 10.0
    review: float = 1.0
    prevalence: float = 0.01

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        Costs(self.escape, self.false_reject, self.review)
        check_share("prevalence", self.prevalence)

    def model(self, ng: Scored, ok: Scored) -> CostModel:
        """Return the costs on scored parts."""
        return CostModel(
            ng, ok, Costs(self.escape, self.false_reject, self.review), self.prevalence
        )

    def words(self) -> str:
        """Return the costs in words."""
        return (
            f"{self.escape:g} for an escape, {self.false_reject:g} for a false reject, "
            f"{self.review:g} for a review, with {self.prevalence:.3g} of the parts defective"
        )


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a detector is made.

    Attributes:
        detect: Of the fit.
        plan: What is held out.
        promise: What is promised; None: what the held-out parts can carry.
        edge: How the edge file is made.
        types: How types of defects are learned.
        boxes: Whether boxes are learned, and how.
        costs: For the cost curve; nothing is decided by them.
    """

    detect: DetectConfig = field(default_factory=DetectConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    promise: Promise | None = None
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    types: TypesConfig = field(default_factory=TypesConfig)
    boxes: BoxesConfig = field(default_factory=BoxesConfig)
    costs: CostConfig = field(default_factory=CostConfig)


def usual_promise(ng: int, ok: int) -> Promise:
    """Return what so many held-out defective and good parts can carry.

    Without enough defective ones nothing is said of escapes, and what is not OK is NG.

    Args:
        ng: Defective parts.
        ok: Good parts.

    Raises:
        ValueError: Fewer than three good parts.
    """
    escape = next((share for share in USUAL if ng >= needed(share, 0.95)), None)
    reject = next((share for share in USUAL if ok >= needed(share, 0.95)), None)
    if reject is not None:
        return Promise(escape, reject, review=escape is not None)
    weaker = next((share for share in USUAL if ok >= average_needed(share)), None)
    if weaker is None:
        raise ValueError(
            f"{ok} good parts held out can promise nothing; label at least {average_needed(0.3)} "
            "more parts as ok"
        )
    return Promise(None, weaker, average=True, review=False)


def judge(model: Detector | EdgeSession, samples: Sequence[Sample]) -> list[Judgement]:
    """Judge samples one by one, so that one decoded image is held at a time."""
    if isinstance(model, EdgeSession):
        found = (model.judge(sample.pixels) for sample in samples)
    else:
        found = (model.judge([sample.pixels])[0] for sample in samples)
    return [replace(said, boxes=boxes_of_heat(said.heat, said.kind)) for said in found]


def types_of(
    detector: Detector,
    samples: Sequence[Sample],
    unlabelled: Sequence[Sample],
    config: TypesConfig | None = None,
) -> FoundTypes | None:
    """Learn the types of a line's defects; None where too few are labelled.

    Args:
        detector: With thresholds: unlabelled images that it calls NG are learned from, too.
        samples: Training images.
        unlabelled: Images that nobody looked at.
        config: How.
    """
    known = [sample for sample in samples if sample.label == "ng" and sample.kind]
    told = zip(known, judge(detector, known), strict=True)
    more = zip(unlabelled, judge(detector, unlabelled), strict=True)
    return learn_types(
        [Found(sample, said.heat) for sample, said in told],
        config,
        [Found(sample, said.heat) for sample, said in more if said.verdict == "NG"],
    )


def named(
    types: FoundTypes, samples: Sequence[Sample], judgements: Sequence[Judgement], at: Thresholds
) -> list[Judgement]:
    """Return judgements with the types named of what is defective, or is not judged OK."""
    return [
        types.named(sample.pixels, said)
        if sample.label == "ng" or at.verdict(said.score) != "OK"
        else said
        for sample, said in zip(samples, judgements, strict=True)
    ]


def settle(
    calibration: Sequence[Sample], scores: Sequence[float], promise: Promise | None
) -> Promised:
    """Return the thresholds that keep a promise on held-out samples.

    Raises:
        TooFewPartsError: Too few parts; says how many are missing.
    """
    ng, ok = scored(calibration, scores)
    chosen = promise or usual_promise(ng.places()[1], ok.places()[1])
    return promised_thresholds(chosen, ng, ok)


def figures(
    samples: Sequence[Sample], judgements: Sequence[Judgement], promised: Promised
) -> dict[str, Any]:
    """Return what a detector does on samples that it has not learnt from, as plain data.

    Args:
        samples: Labelled.
        judgements: One each.
        promised: The thresholds.
    """
    scores = [judgement.score for judgement in judgements]
    ng, ok = scored(samples, scores)
    found: dict[str, Any] = {"ng_parts": ng.places()[1], "ok_parts": ok.places()[1]}
    limits = promised.thresholds
    if len(ng):
        found["escapes"] = [_plain(one) for one in escape_rates(ng, limits)]
    if len(ok):
        found["false_rejects"] = _plain(false_reject_rate(ok, limits))
    verdicts = [limits.verdict(score) for score in scores]
    found["review_share"] = verdicts.count("REVIEW") / max(len(verdicts), 1)
    if len(ng) and len(ok):
        found["auroc"] = auroc([*ok.scores, *ng.scores], [*[0] * len(ok), *[1] * len(ng)])
        found["auroc_low"], found["auroc_high"] = _interval(ng, ok)
    drawn = [
        (j.heat, s.mask) for s, j in zip(samples, judgements, strict=True) if s.mask is not None
    ]
    marked = [pair for pair in drawn if pair[1].any()]
    if marked:
        clean = [
            (j.heat, np.zeros(s.pixels.shape[:2], dtype=np.bool_))
            for s, j in zip(samples, judgements, strict=True)
            if s.label == "ok"
        ]
        heats, masks = zip(*marked, *clean, strict=True)
        found["pixel_auroc"], found["aupro"] = heat_metrics(heats, masks)
    return found


def export(
    scorer: Scorer,
    promised: Promised,
    calibration: Sequence[Sample],
    images: Sequence[Pixels],
    proof: Sequence[Pixels],
    config: EdgeConfig,
) -> tuple[EdgeFile, Promised]:
    """Make the edge file of a detector, with thresholds that keep the same promise for the file.

    Int8 moves scores a little. So what is promised of the file is settled by what the file itself
    says of the calibration parts; the detector keeps its own thresholds.

    Args:
        scorer: Of the detector, float.
        promised: Its thresholds and promise.
        calibration: The samples that these were set by.
        images: Int8 ranges are measured on them; none of the calibration.
        proof: Images of the parity record.
        config: How.
    """
    kept: list[Promised] = []

    def settled(session: EdgeSession) -> Thresholds:
        scores = [session.judge(sample.pixels).score for sample in calibration]
        kept.append(settle(calibration, scores, promised.promise))
        return kept[0].thresholds

    edge = build_edge(
        scorer,
        promised.thresholds,
        images,
        settle=settled,
        proof=proof,
        config=config,
    )
    return edge, kept[0]


def edge_words(edge: EdgeFile) -> str:
    """Return whose scores a promise is of, and how far the float detector is from it."""
    record = edge.record
    return (
        "Scores, thresholds and promise are those of the edge file, which runs on the line. The "
        "float detector, with thresholds of its own by the same promise, decides "
        f"{record.quantised.flips} of {len(record.images)} images of the parity record otherwise."
    )


def with_thresholds(detector: Detector, promised: Promised) -> Detector:
    """Return the detector that gives verdicts."""
    return replace(detector, thresholds=promised.thresholds)


def promise_record(promised: Promised, detector: Promised | None = None) -> dict[str, Any]:
    """Return thresholds, promise and assumptions as JSON data; infinite numbers are texts.

    Args:
        promised: Of the edge file, which is what runs on the line.
        detector: Of the float detector, whose thresholds are told beside.
    """
    record = {
        **_limits(promised),
        "promise": asdict(promised.promise),
        "kept": [finite(asdict(one), str) for one in promised.kept],
        "crossed": promised.crossed,
        "in_words": sentences(promised),
        "assumptions": assumptions(promised),
    }
    if detector is not None:
        record |= {"set_by": "scores of the edge file", "float_detector": _limits(detector)}
    return record


def _limits(promised: Promised) -> dict[str, Any]:
    both = promised.thresholds
    return {"ok_below": finite(both.ok_below, str), "ng_from": finite(both.ng_from, str)}


def _interval(ng: Scored, ok: Scored, seed: int = 2018) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC; parts are drawn as a whole, each side apart."""
    rng = np.random.default_rng(seed)
    bad, good = np.asarray(ng.scores)[:, None], np.asarray(ok.scores)[None, :]
    won = (bad > good) + 0.5 * (bad == good)
    areas = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        weights = []
        for side in (ng, ok):
            place, parts = side.places()
            weights.append(np.bincount(rng.integers(parts, size=parts), minlength=parts)[place])
        rows, columns = (each.astype(np.float64) for each in weights)
        areas[k] = rows @ won @ columns / (rows.sum() * columns.sum())
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def _plain(one: Rate) -> Mapping[str, Any]:
    return {
        "name": one.name,
        "parts": one.parts,
        "wrong": one.wrong,
        "low": one.low,
        "high": one.high,
    }
