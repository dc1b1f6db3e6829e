"""The model of the central machine, one image at a time, and the thread that decides reviews."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

from connectors.api.journal import JournalError
from connectors.defects.inspect.backoff import Backoff
from connectors.defects.inspect.central.store import Review, ReviewStore
from connectors.defects.inspect.heat_map import heat_png
from connectors.defects.inspect.inspector import (
    Decoder,
    Inspector,
    Opinion,
    as_eight_bits,
)
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.sandbox import SandboxError

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """What the model says of an image.

    Attributes:
        opinion: As JSON.
        heat: Heat map as PNG.
    """

    opinion: dict[str, Any]
    heat: bytes


class Desk(threading.Thread):
    """Judges what is put before it: reviews in turn, single images at once."""

    def __init__(self, inspector: Inspector, decoder: Decoder, store: ReviewStore) -> None:
        super().__init__(name="reviews", daemon=True)
        self.inspector = inspector
        self._decoder, self._store = decoder, store
        self._one_at_a_time = threading.Lock()
        self._wake, self._ended = threading.Event(), threading.Event()

    def judge(self, content: bytes) -> Decision:
        """Judge the bytes of a file.

        Raises:
            ImageRefusedError: They are no image that can be used.
        """
        pixels = as_eight_bits(self._decoder.pixels(content))
        with self._one_at_a_time:
            judgement = self.inspector.judge(pixels)
        opinion = Opinion.of(judgement, self.inspector).to_json()
        return Decision(opinion, heat_png(judgement.heat, pixels))

    def run(self) -> None:
        """Decide reviews until it is ended."""
        backoff = Backoff()
        while not self._ended.is_set():
            try:
                review = self._store.next()
                if review is None:
                    self._wake.wait(IDLE_SECONDS)
                    self._wake.clear()
                    continue
                decision = self._decided(review)
                self._store.decide(review.key, decision.opinion, decision.heat)
            except (JournalError, SandboxError) as error:
                logger.error("reviews wait: %s", error)  # noqa: TRY400 - tried again
                self._ended.wait(backoff.next())
            else:
                backoff.reset()

    def wake(self) -> None:
        """Tell it that there is a new review."""
        self._wake.set()

    def end(self) -> None:
        """End the thread after the image at hand."""
        self._ended.set()
        self._wake.set()
        if self.is_alive():
            self.join()

    def _decided(self, review: Review) -> Decision:
        """Judge a review; what cannot be judged stays REVIEW, for a person, with the reason."""
        try:
            return self.judge(review.content)
        except ImageRefusedError as error:
            reason = str(error)
        except SandboxError:
            raise
        except Exception as error:
            logger.exception("%s: the central model fails on it", review.name)
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
