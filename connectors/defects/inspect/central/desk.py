"""The model of the central machine, one image at a time, and the thread that decides reviews."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.api.journal import JournalError
from connectors.defects.inspect.central.store import Review, ReviewStore
from connectors.defects.inspect.heat_map import heat_png
from connectors.defects.inspect.inspector import (
    Decoder,
    Inspector,
    Opinion,
)
from connectors.defects.inspect.patient_thread import PatientThread
from connectors.defects.inspect.retention import EVERY_SECONDS, KEEP_DAYS
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.sandbox import SandboxError
from tasks.defects.samples import eight_bits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the model says of an image.

    Attributes:
        opinion: As JSON.
        heat: Heat map as PNG.
    """

    opinion: dict[str, Any]
    heat: bytes


class Desk(PatientThread):
    """Judges what is put before it: reviews in turn, single images at once."""

    foreseen = (JournalError, SandboxError)

    def __init__(
        self,
        inspector: Inspector,
        decoder: Decoder,
        store: ReviewStore,
        keep_days: float = KEEP_DAYS,
    ) -> None:
        super().__init__("reviews")
        self.inspector = inspector
        self._decoder, self._store = decoder, store
        self._one_at_a_time = threading.Lock()
        self._kept = timedelta(days=keep_days)
        self._next_sweep = time.monotonic()

    def judge(self, content: bytes) -> Decision:
        """Judge the bytes of a file.

        Raises:
            ImageRefusedError: They are no image that can be used.
        """
        pixels = eight_bits(self._decoder.pixels(content), self.inspector.bits)
        with self._one_at_a_time:
            judgement = self.inspector.judge(pixels)
        opinion = Opinion.of(judgement, self.inspector).to_json()
        return Decision(opinion, heat_png(judgement.heat, pixels))

    def step(self) -> bool:
        """Decide the next review; False where there is none."""
        self._sweep_often()
        review = self._store.next()
        if review is None:
            return False
        decision = self._decided(review)
        self._store.decide(review.key, decision.opinion, decision.heat)
        return True

    def waiting(self) -> int:
        """Return how many reviews are not decided."""
        return self._store.counts()["waiting"]

    def _sweep_often(self) -> None:
        """Let go of old decisions if the last time is an hour ago."""
        if self._kept and time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + EVERY_SECONDS
            self._store.forget(datetime.now(UTC) - self._kept)

    def _decided(self, review: Review) -> Decision:
        """Judge a review; what cannot be judged stays REVIEW, for a person, with the reason."""
        try:
            return self.judge(review.content)
        except ImageRefusedError as error:
            reason = str(error)
        except SandboxError:
            raise
        except Exception as error:
            logger.exception("%r: the central model fails on it", review.name)
            reason = f"{type(error).__name__}: {error}"
        said: dict[str, Any] = {
            "verdict": "REVIEW",
            "score": None,
            "kind": "",
            "kinds": {},
            "boxes": [],
            "model": self.inspector.digest,
            "refused": reason[:300],
        }
        return Decision(said, b"")
