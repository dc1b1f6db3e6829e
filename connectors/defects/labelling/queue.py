"""In which order images are shown: ranked by what the labels so far leave open, or as drawn.

Images are measured in the background while a person labels already; until they are, the draw is
the order. After every few labels the order is made anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from connectors.defects.labelling.detector import OK, no_odds, odds_of
from connectors.defects.labelling.history import Decision
from connectors.defects.labelling.pictures import Pictures, digest
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.features import gray_of, small
from tasks.cleaning.images.likeness import twins
from tasks.defects.active.draw import drawn
from tasks.defects.active.guess import Components, Guess
from tasks.defects.active.rank import RankConfig, Ranking, rank
from tasks.defects.active.texture import texture

LOG = logging.getLogger(__name__)
Order = Literal["ranked", "drawn"]
MOST_MEASURED = 4_000
"""Of larger folders the first of the draw are ranked; the others come after them as drawn."""
AHEAD = 48
"""Images ranked at a time."""
AGAIN = 5
"""Labels after which the order is made anew."""
NO_TYPE = "NG"
Seen = tuple[int, str, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]
"""Place, digest, small form, texture, and what a detector says."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of the images that were measured.

    Attributes:
        places: int64 [n] in the listing.
        components: float64 [n, d].
        groups: int64 [n], equal for near-duplicates: place of the first in ``places``.
        odds: float64 [n, types] of a detector that was trained before; None without one.
    """

    places: NDArray[np.int64]
    components: NDArray[np.float64]
    groups: NDArray[np.int64]
    odds: NDArray[np.float64] | None = None


@dataclass(slots=True)
class Ranked:
    """An order and what it came of.

    Attributes:
        places: In the listing, the most telling first.
        reasons: By place, for people.
        labels: Number of labels that it knows.
    """

    places: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    labels: int = -1


class Queue:
    """The images that nobody labelled yet; used from any thread, a context manager.

    Args:
        pictures: The images.

    Attributes:
        done: Images measured so far.
        number: Images that are to be measured.
        copies: Place -> place of the first image that it repeats, once all are measured.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._drawn: list[int] = drawn([file.name for file in pictures.files]).tolist()
        self.number, self.done = min(len(self._drawn), MOST_MEASURED), 0
        self.copies: dict[int, int] = {}
        self._measured: Measured | None = None
        self._ranked = Ranked()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="measure", daemon=True)

    def __enter__(self) -> Queue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def ready(self) -> bool:
        """Whether all were measured, so that the order is ranked."""
        return self._measured is not None

    def wait(self, seconds: float) -> bool:
        """Wait for the measuring; returns whether it is done."""
        self._thread.join(seconds)
        return self.ready

    def places(self, order: Order, holding: Mapping[str, Decision]) -> Iterator[int]:
        """Yield places of images without a label in order; of near-duplicates one."""
        labelled = {self._pictures.places.get(name, -1) for name in holding}
        seen = {self.copies.get(place, place) for place in labelled}
        first = self._order(holding).places if order == "ranked" else []
        for place in [*first, *self._drawn]:
            group = self.copies.get(place, place)
            if group in seen or self._pictures.files[place].name in self._pictures.troubles:
                continue
            seen.add(group)
            yield place

    def reason(self, place: int) -> str:
        """Return why an image is asked for, "" where it is its turn by the draw."""
        return self._ranked.reasons.get(place, "")

    def _order(self, holding: Mapping[str, Decision]) -> Ranked:
        with self._lock:
            measured, held = self._measured, self._ranked
            if measured is None:
                return held
            if held.labels < 0 or abs(len(holding) - held.labels) >= AGAIN:
                self._ranked = held = self._rank(measured, holding)
            return held

    def _rank(self, measured: Measured, holding: Mapping[str, Decision]) -> Ranked:
        at = {int(place): i for i, place in enumerate(measured.places)}
        told = {at[p]: d for name, d in holding.items()
                if (p := self._pictures.places.get(name, -1)) in at}  # fmt: skip
        types = [_type(decision) for decision in told.values()]
        names = sorted({name for name in types if name})
        odds, config = measured.odds, RankConfig()
        if odds is not None and self._pictures.detector is not None:
            # What was learnt before tells more than the textures of the labels given here.
            kinds = self._pictures.detector.kinds
            names, config = [OK, *kinds], replace(config, start=0)
            types = [name if name in {"", *names} else kinds[-1] for name in types]
        known = np.array([i for i, name in zip(told, types, strict=True) if name], np.int64)
        classes = np.array([names.index(name) for name in types if name], np.int64)
        if odds is None and len(names) > 1:
            guess = Guess.of(measured.components[known], classes)
            odds = guess.probabilities(measured.components, len(names))
        counts = None if odds is None else np.bincount(classes, minlength=len(names))
        ranking = rank(
            measured.components, odds, np.array(list(told), np.int64), AHEAD, config,
            groups=measured.groups, counts=counts,
        )  # fmt: skip
        places = [int(measured.places[i]) for i in ranking.order]
        return Ranked(places, _texts(places, ranking, names), len(holding))

    def _measure(self) -> None:
        def one(place: int) -> Seen | None:
            if self._end.is_set():
                return None
            try:
                pixels = self._pictures.pixels(place)
            except ImageRefusedError:
                return None
            finally:
                self.done += 1
            gray = gray_of(pixels)
            found = self._odds(pixels)
            return place, digest(pixels), small(gray), texture(gray), found

        try:
            # One at a time: the page itself needs the other workers.
            with ThreadPoolExecutor(1, thread_name_prefix="measure") as pool:
                found = [f for f in pool.map(one, self._drawn[: self.number]) if f is not None]
            if not found or self._end.is_set():
                return
            places, digests, little, features, odds = zip(*found, strict=True)
            repeats = twins(digests, np.stack(little))
            first = [repeats[i].of if i in repeats else i for i in range(len(places))]
            components = Components.of(np.stack(features))
            self.copies = {places[i]: places[of] for i, of in enumerate(first) if of != i}
            self._measured = Measured(
                np.array(places, np.int64),
                components.of_images(np.stack(features)),
                np.array(first, np.int64),
                np.stack(odds) if self._pictures.has_heat else None,
            )
        except Exception:
            LOG.exception("the images could not be ranked; they come as drawn")

    def _odds(self, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float64]:
        """Return what a detector says of an image, float64 [types]; of no type without one."""
        if self._pictures.detector is None:
            return np.zeros(0)
        kinds, judgement = self._pictures.detector.kinds, self._pictures.judged(pixels)
        return no_odds(kinds) if judgement is None else odds_of(judgement, kinds)


def _type(decision: Decision) -> str:
    """Return the class of a decision for the classifier, "" where it tells none."""
    if decision.said == "unsure":
        return ""
    return OK if decision.said == "ok" else decision.kind or NO_TYPE


def _texts(places: list[int], ranking: Ranking, names: list[str]) -> dict[int, str]:
    found = {}
    for place, reason in zip(places, ranking.reasons, strict=True):
        text = "typical of images that nobody labelled"
        if reason.why == "unsure":
            sure = (f"{names[t]} {odds:.0%}" for t, odds in zip(reason.types, reason.odds,
                                                                strict=True))  # fmt: skip
            text = f"undecided: {' or '.join(sure)}"
        found[place] = text
    return found
