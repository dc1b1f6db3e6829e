"""What good images of a line look like, learnt from a folder of them, and the one test against it.

An image is scored by its distance to the nearest reference image over sixteen numbers (sharpness
at three scales, brightness, contrast, noise), each in units of its spread over the reference; an
image of a size or source that no reference image has is infinitely far. The score's p-value is
full-conformal: the share of reference images, the new one counted with them, that are as far from
their own nearest. Where new good images are exchangeable with the reference, at most ``alpha`` of
them have p ≤ ``alpha``, whatever the distribution (Vovk, Gammerman and Shafer, Algorithmic Learning
in a Random World, 2005). For one nearest neighbour that needs no refitting: adding an image brings
others no nearer than it is to its own nearest, so their leave-one-out distances decide. The spread
is taken from the reference alone, which is off from exact by the order of 1 / n.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.faults import FAULTS
from tasks.cleaning.images.sandbox import MeasuredImage

Floats = NDArray[np.float64]
VERSION = 1
LEAST_IMAGES = 20
MAX_IMAGES = 20_000
BLOCK = 256
SHARPNESS = ("sharp1", "sharp2", "sharp4", "least1", "least2", "least4")
BRIGHTNESS = ("p01", "p05", "p50", "p95", "p99")
OTHERS = ("contrast", "noise", "entropy", "contrast_share", "noise_share", "colourfulness")
NUMBERS = (*SHARPNESS, *BRIGHTNESS, *OTHERS)
# Spreads below these would call rounding a difference.
LEAST_SPREAD = dict.fromkeys(NUMBERS, 0.02) | dict.fromkeys(BRIGHTNESS, 1.0)
LEAST_SPREAD |= {"colourfulness": 1.0}
SPOILT_IMAGES = 300
"""Reference images that are spoilt to give the faults their names, at most."""
UNLIKE = "unlike-reference"
WRONG_SIZE, WRONG_CAMERA = "wrong-size", "wrong-camera"


class ImageReferenceError(ValueError):
    """A reference that cannot be learnt or read; says how to mend it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an image lies to the reference.

    Attributes:
        p: Share of good images that would be as unlike the others, by the reference.
        rule: What it is called where it is flagged: ``blur``, ``dark``, ``light``,
            ``unlike-reference``, ``wrong-size`` or ``wrong-camera``.
        observed: What stands out, for people.
        expected: What the nearest reference image, or all of them, have there.
    """

    p: float
    rule: str
    observed: str
    expected: str


@dataclass(frozen=True, slots=True)
class ImageReference:
    """Good images of a line.

    Attributes:
        vectors: float64 [n, NUMBERS] of the images.
        sizes: Size, such as ``"200 x 200"`` -> images.
        sources: Format, depth, camera and compression (:func:`source_of`) -> images.
        far: float64 [n] distance of each to its nearest other one, in order; infinite for an image
            whose size or source no other one has.
        black: Whether some image is wholly dark, or wholly light.
        spoilt: Fault -> float64 [m, NUMBERS] of reference images with it (``faults.py``).
    """

    vectors: Floats
    sizes: Mapping[str, int]
    sources: Mapping[str, int]
    far: Floats
    black: bool
    spoilt: Mapping[str, Floats]

    @property
    def images(self) -> int:
        """Number of reference images."""
        return len(self.vectors)

    @property
    def least_alpha(self) -> float:
        """The least share that can be promised: 1 / (n + 1)."""
        return 1.0 / (self.images + 1)

    def promised(self, alpha: float) -> float:
        """Return the share of good images that is flagged at most, wanted or possible."""
        return max(alpha, self.least_alpha)

    def judge(self, images: Sequence[MeasuredImage]) -> list[Verdict]:
        """Hold images against the reference.

        Args:
            images: Images that were measured, in any order.
        """
        if not images:
            return []
        centre, spread = _scale(self.vectors)
        scaled = (self.vectors - centre) / spread
        given = (_vectors(images) - centre) / spread
        distance, nearest = _nearest(given, scaled)
        spoilt = {
            name: _nearest(given, (bank - centre) / spread)[0]
            for name, bank in self.spoilt.items()
            if len(bank)
        }
        made = []
        for i, image in enumerate(images):
            size, source = size_of(image), source_of(image)
            strange = size not in self.sizes or source not in self.sources
            d = math.inf if strange else distance[i]
            p = float((1 + (self.far >= d).sum()) / (self.images + 1))
            if strange:
                made.append(self._strange(p, size, source))
                continue
            # The fault that explains the image better than no fault does.
            rule = min(spoilt, key=lambda name: float(spoilt[name][i]), default=UNLIKE)
            if rule != UNLIKE and spoilt[rule][i] >= distance[i]:
                rule = UNLIKE
            k = int(np.abs(given[i] - scaled[nearest[i]]).argmax())
            away = abs(given[i, k] - scaled[nearest[i], k])
            value, usual = given[i, k] * spread[k] + centre[k], self.vectors[nearest[i], k]
            made.append(
                Verdict(
                    p,
                    rule,
                    f"{NUMBERS[k]} {value:.3g}, {away:.2g} spreads from the nearest good image",
                    f"{NUMBERS[k]} {usual:.3g}, as in the nearest good image",
                )
            )
        return made

    def _strange(self, p: float, size: str, source: str) -> Verdict:
        if size not in self.sizes:
            return Verdict(p, WRONG_SIZE, size, _commonest(self.sizes))
        return Verdict(p, WRONG_CAMERA, source, _commonest(self.sources))

    def to_json(self) -> str:
        """Return the reference as JSON; it holds numbers of the images, no images."""
        return json.dumps(
            {
                "version": VERSION,
                "numbers": NUMBERS,
                "sizes": dict(self.sizes),
                "sources": dict(self.sources),
                "black": self.black,
                "far": [None if math.isinf(v) else v for v in self.far.tolist()],
                "vectors": self.vectors.round(5).tolist(),
                "spoilt": {name: bank.round(5).tolist() for name, bank in self.spoilt.items()},
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str, source: str = "reference") -> ImageReference:
        """Read what `to_json` wrote.

        Raises:
            ImageReferenceError: When it is damaged or of another version.
        """
        try:
            said: dict[str, Any] = json.loads(text)
            known = said["version"] == VERSION and tuple(said["numbers"]) == NUMBERS
            vectors = np.array(said["vectors"], np.float64)
            far = np.array([math.inf if v is None else v for v in said["far"]], np.float64)
            sizes, sources = (
                {str(k): int(v) for k, v in said[name].items()} for name in ("sizes", "sources")
            )
            spoilt = {
                name: np.array(said["spoilt"][name], np.float64).reshape(-1, len(NUMBERS))
                for name in FAULTS
            }
            made = cls(vectors, sizes, sources, far, bool(said["black"]), spoilt)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ImageReferenceError(
                f"{source}: no reference ({type(error).__name__}: {error}); learn it again"
            ) from error
        if (
            not known
            or vectors.shape != (len(far), len(NUMBERS))
            or not LEAST_IMAGES <= len(far) <= MAX_IMAGES
            or not np.isfinite(vectors).all()
            or not (far >= 0).all()
            or not all(np.isfinite(bank).all() for bank in spoilt.values())
        ):
            raise ImageReferenceError(f"{source}: damaged, or of another version; learn it again")
        return made


def learn_reference(images: Sequence[MeasuredImage]) -> ImageReference:
    """Learn what good images look like.

    Args:
        images: Good images, as different from one another as new ones will be from them: without
            duplicates and not twenty exposures of one part. Those measured with faults lend the
            faults their names.

    Raises:
        ImageReferenceError: When there are fewer than 20 images, or more than 20,000.
    """
    n = len(images)
    if not LEAST_IMAGES <= n <= MAX_IMAGES:
        raise ImageReferenceError(
            f"{n} good images to learn from; give {LEAST_IMAGES} to {MAX_IMAGES:,} "
            "(99 keep a promise of 1 %)"
        )
    vectors = _vectors(images).round(5)  # as it is saved
    sizes, sources = Counter(map(size_of, images)), Counter(map(source_of, images))
    black = any(uniform(image) for image in images)
    centre, spread = _scale(vectors)
    scaled = (vectors - centre) / spread
    far, _ = _nearest(scaled, scaled, itself=True)
    alone = np.array([sizes[size_of(i)] == 1 or sources[source_of(i)] == 1 for i in images])
    far = np.sort(np.where(alone, np.inf, far))
    lent = [image for image in images if image.faults]
    lent = lent[:: -(-len(lent) // SPOILT_IMAGES) or 1]
    spoilt = {
        name: _stacked([f for image in lent for given, f in image.faults if given == name])
        for name in FAULTS
    }
    return ImageReference(vectors, sizes, sources, far, black, spoilt)


def size_of(image: MeasuredImage) -> str:
    """Return the size as text."""
    return f"{image.facts['width']} x {image.facts['height']}"


def source_of(image: MeasuredImage) -> str:
    """Return what tells one camera and its software from another: format, depth, make, tables."""
    facts = image.facts
    tables = facts.get("tables") or []
    text = f"{facts['format']} {facts['kind']} {facts['bits']} bits"
    if tables:
        text += f" tables {hashlib.sha256(json.dumps(tables).encode()).hexdigest()[:8]}"
    camera = " ".join(part for part in (facts["make"], facts["model"]) if part)
    return f"{text} camera {camera}" if camera else text


def uniform(image: MeasuredImage) -> bool:
    """Return whether an image is wholly black, wholly white, or of one level."""
    f = image.features
    return f["dark_share"] >= 0.999 or f["light_share"] >= 0.999 or f["p01"] == f["p99"]


def _scale(vectors: Floats) -> tuple[Floats, Floats]:
    least = np.array([LEAST_SPREAD[name] for name in NUMBERS])
    return vectors.mean(0), np.maximum(vectors.std(0), least)


def _vectors(images: Sequence[MeasuredImage]) -> Floats:
    return _stacked([image.features for image in images])


def _stacked(features: Sequence[Mapping[str, float]]) -> Floats:
    rows = [[numbers[name] for name in NUMBERS] for numbers in map(_numbers, features)]
    return np.array(rows, np.float64).reshape(-1, len(NUMBERS))


def _numbers(f: Mapping[str, float]) -> dict[str, float]:
    both = {k: (f[f"sharp{k}_rows"], f[f"sharp{k}_columns"]) for k in (1, 2, 4)}
    return (
        {f"sharp{k}": sum(two) for k, two in both.items()}
        | {f"least{k}": min(two) for k, two in both.items()}
        | {name: f[name] for name in (*BRIGHTNESS, "entropy", "colourfulness")}
        | {
            "contrast": math.log(f["contrast"] + 1),
            "noise": math.log(f["noise"] + 0.1),
            "contrast_share": math.log((f["contrast"] + 1) / (f["mean"] + 1)),
            "noise_share": math.log((f["noise"] + 0.1) / (f["mean"] + 1)),
        }
    )


def _nearest(
    given: Floats, known: Floats, *, itself: bool = False
) -> tuple[Floats, NDArray[np.int64]]:
    """Return distance to, and place of, the nearest known row of each given one.

    Args:
        given: [m, d].
        known: [n, d].
        itself: Both are the same; a row is not its own nearest.
    """
    distance, place = np.empty(len(given)), np.empty(len(given), np.int64)
    for start in range(0, len(given), BLOCK):
        part = given[start : start + BLOCK]
        squares = np.zeros((len(part), len(known)))
        for k in range(known.shape[1]):  # exact for equal rows, unlike the product of matrices
            squares += np.square(part[:, k, None] - known[None, :, k])
        if itself:
            rows = np.arange(len(part))
            squares[rows, rows + start] = np.inf
        at = squares.argmin(1)
        place[start : start + BLOCK] = at
        distance[start : start + BLOCK] = np.sqrt(squares[np.arange(len(part)), at])
    return distance, place


def _commonest(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = " or ".join(name for name, _ in ordered[:3])
    return shown if len(ordered) <= 3 else f"{shown}, or {len(ordered) - 3} others"
