"""A promise in words, with what it assumes: for the record, the page, and people who sign."""

from __future__ import annotations

from tasks.defects.promise.parts import Per
from tasks.defects.promise.thresholds import Kept, Promised

WRONG: dict[Per, str] = {
    "every image": "{parts} have an image that is {done}",
    "one image": "{parts} are {done} by one image of them, taken at random",
    "part": "{parts} are {done} with all of their images looked at and stopped by any",
}


def sentences(promised: Promised) -> list[str]:
    """Return what is promised, one sentence for each side and type."""
    told = [_sentence(one, promised) for one in promised.kept]
    if promised.crossed:
        told.append("One threshold keeps both promises, so nothing is left to review.")
    return told


def assumptions(promised: Promised) -> list[str]:
    """Return what must be true for the promise to hold."""
    promise = promised.promise
    told = [
        "Calibration parts are drawn, independently of each other, from the parts to be judged.",
        "Line, light, camera and defects stay as they were; a change ends the promise.",
        "Labels are right, and images that show one part are named as one part.",
    ]
    if promise.source == "held-out":
        told.append("None of these parts was used to train or to choose the model.")
    else:
        told.append(
            "Scores are out of fold: they come from models trained without the part, not from the "
            "one that judges. The shares hold exactly only if that one scores new parts as those "
            "did; take them as estimates."
        )
    if promise.per == "every image":
        told.append("Parts are shown by about as many images as in the calibration.")
    if promise.per == "part":
        told.append("Every part is looked at by the same images as in the calibration.")
    if promise.max_escape is not None and not promise.by_type:
        told.append("The mix of types of defects stays; a rare type may escape more often.")
    if promise.max_escape is not None:
        told.append("Defects of a kind that the calibration has none of are not covered.")
    return told


def _sentence(one: Kept, promised: Promised) -> str:
    escape = one.side == "escape"
    parts = ("defective" if escape else "good") + " parts"
    parts += f" of type {one.kind}" if one.kind else ""
    done = "passed as OK" if escape else "rejected as NG"
    wrong = WRONG[promised.promise.per].format(parts=parts, done=done)
    estimate = "An estimate: at" if promised.promise.source == "out-of-fold" else "At"
    if one.confidence:
        sure = f"with {100 * one.confidence:.6g} % confidence"
        best = f"; the least that they promise is {100 * one.bound:.3g} %"
    else:
        sure, best = "in the mean over calibrations, of which a single one may do worse", ""
    # Fewer where scores are equal, or where another side or type moved the threshold on.
    beyond = f"at most {one.rank - 1} of {one.parts} calibration parts lie beyond the threshold"
    return f"{estimate} most {100 * one.alpha:.6g} % of {wrong}, {sure} ({beyond}{best})."
