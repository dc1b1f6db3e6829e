"""Exact SHAP values of a linear model on encoded features, in closed form.

For independent features the interventional value of a linear term is its distance from the
background mean (Strumbelj and Kononenko 2014): ``weight * (input - mean input)``. An encoding may
spread one feature over several inputs; their terms belong to that feature and are summed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.explain.additivity import check_additivity
from tasks.explain.tree import Explanation

Float = NDArray[np.float64]


def explain_linear(
    names: Sequence[str],
    inputs: Float,
    background: Float,
    weights: Float,
    bias: float,
    owner: NDArray[np.intp],
    *,
    background_sha256: str = "",
) -> Explanation:
    """Explain ``inputs @ weights + bias``.

    Args:
        names: The F feature names.
        inputs: Encoded rows ``[n, G]``.
        background: Encoded background rows ``[m, G]``.
        weights: ``[G]``.
        bias: Intercept.
        owner: ``[G]`` position of the feature each input was made of.
        background_sha256: Digest of the background rows.

    Raises:
        ValueError: When shapes do not fit, or an input or background value is not finite.
        AdditivityError: When the terms do not add up.
    """
    width = len(weights)
    if inputs.shape[1:] != (width,) or background.shape[1:] != (width,) or len(owner) != width:
        raise ValueError(
            f"{inputs.shape[1:]} inputs, {background.shape[1:]} background inputs and "
            f"{len(owner)} owners for {width} weights; all must be encoded alike"
        )
    if len(background) == 0:
        raise ValueError("a linear explanation needs background rows; freeze at least one")
    _check_finite(names, inputs, background, owner)
    mean = background.mean(axis=0)
    terms = (inputs - mean) * weights
    values = np.zeros((len(inputs), len(names)))
    np.add.at(values.T, owner, terms.T)
    base = float(mean @ weights + bias)
    raw = inputs @ weights + bias
    gap = check_additivity(values, base, raw)
    return Explanation(
        tuple(names), values[None], np.array([base]), raw, gap, "interventional", background_sha256
    )


def combine(parts: Sequence[Explanation], weights: Sequence[float]) -> Explanation:
    """Explain a weighted sum of models that were explained on the same rows.

    Parts with several models are added model by model and keep their spread; parts with one model
    are added to each of them.

    Raises:
        ValueError: When the parts explain other features or rows, are of different backgrounds, or
            have different numbers of models, whose spread has no sum.
    """
    if not parts or len(parts) != len(weights):
        raise ValueError("a blend needs one weight for each explanation")
    first = parts[0]
    if any(p.names != first.names or p.raw_score.shape != first.raw_score.shape for p in parts):
        raise ValueError("explanations of other features or rows cannot be added")
    backgrounds = _distinct(p.background_sha256 for p in parts)
    if len(backgrounds) > 1:
        raise ValueError(
            f"parts explained against different backgrounds ({', '.join(backgrounds)}) have no "
            "common base; explain all of them against one"
        )
    counts = sorted({len(p.per_model) for p in parts} - {1})
    if len(counts) > 1:
        raise ValueError(
            f"parts of {' and '.join(map(str, counts))} models cannot be added model by model, and "
            "without that the sum has no error; train all parts with the same number of seeds"
        )
    per_model = np.zeros((1, *first.per_model.shape[1:]))
    base, raw = np.zeros(1), np.zeros_like(first.raw_score)
    for part, weight in zip(parts, weights, strict=True):
        per_model = per_model + weight * part.per_model
        base = base + weight * part.base
        raw = raw + weight * part.raw_score
    gap = check_additivity(per_model.mean(axis=0), float(base.mean()), raw, tolerance=1e-5)
    methods = {p.method for p in parts}
    return Explanation(
        first.names,
        per_model,
        base,
        raw,
        max(gap, *(p.additivity_gap for p in parts)),
        "mixed" if len(methods) > 1 else first.method,
        backgrounds[0] if backgrounds else "",
    )


def _distinct(digests: Iterable[str]) -> list[str]:
    """Return the digests there are, each once: parts without a background have none."""
    return list(dict.fromkeys(digest for digest in digests if digest))


def _check_finite(
    names: Sequence[str], inputs: Float, background: Float, owner: NDArray[np.intp]
) -> None:
    """Refuse missing inputs: a linear model has no score of them, so nothing to explain."""
    for kind, rows in (("row", inputs), ("background row", background)):
        wrong = np.argwhere(~np.isfinite(rows))
        if len(wrong):
            row, place = wrong[0]
            raise ValueError(
                f"{names[owner[place]]!r} of {kind} {row} is {rows[row, place]}: a linear model "
                "takes finite inputs alone; fill it as in training"
            )
