"""Sends the review queue to the central model and fetches its decisions, over one connection.

The edge asks; nothing has to reach into the plant. Sending and asking can both be repeated at any
time: images go by the SHA-256 of their content.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from connectors.api.journal import JournalError
from connectors.cleaning.image_files import ImageFile, read_image_file
from connectors.defects.inspect.backoff import Backoff
from connectors.defects.inspect.http_link import Answer, HttpLink, LinkError
from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.patient_thread import PatientThread, TryLaterError
from connectors.defects.inspect.review_queue import QueuedImage
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.limits import ImageLimits

logger = logging.getLogger(__name__)

REVIEW_PATH, DECISIONS_PATH = "/v1/review", "/v1/review/decisions"
KEY_HEADER, NAME_HEADER, EDGE_HEADER = "idempotency-key", "x-penstock-name", "x-penstock-edge"
VERDICTS = frozenset({"OK", "NG", "REVIEW"})
ASKED_AT_ONCE = 500
SENT_AT_ONCE = 20
"""Images sent before decisions are asked for again."""
MAX_EDGE = 4_096
"""Bytes of the edge's opinion that travel along."""
REFUSALS = frozenset({400, 409, 413, 415, 422})
"""Answers that say of this image that it will never be taken."""


class UplinkError(TryLaterError):
    """The central machine does not do its part now."""


class Uplink(PatientThread):
    """The thread between the queue and the central machine."""

    foreseen = (UplinkError, LinkError, JournalError)

    def __init__(
        self,
        journal: Journal,
        link: HttpLink,
        folder: Path,
        *,
        backoff: Backoff | None = None,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """Put the parts together.

        Args:
            journal: Of the line.
            link: To the central machine.
            folder: The inspected folder: images that found no room are read from it later.
            backoff: Pauses after failures.
            settled: Called when decisions were journalled.
        """
        super().__init__("uplink to the central machine", backoff)
        self._journal, self._link, self._folder = journal, link, folder
        self._settled = settled

    def step(self) -> bool:
        """Send some images and ask for decisions once; False where there was nothing new.

        Raises:
            UplinkError: The central machine refuses, for now.
            LinkError: It was not reached.
        """
        self._refill()
        trouble: UplinkError | LinkError | None = None
        sent = False
        try:
            sent = self._send_some()
        except UplinkError as error:
            trouble = error
        except LinkError as error:
            if not error.midway:
                raise
            trouble = error
        # One image that is not taken must not keep the decisions of others away.
        settled = self._ask()
        if trouble is not None:
            raise trouble
        return sent or settled

    def waiting(self) -> int:
        """Return how many images are without a decision."""
        return self._journal.queue.state().open

    def close(self) -> None:
        """Close the connection; what is queued stays queued."""
        self._link.close()

    def _send_some(self) -> bool:
        for number in range(SENT_AT_ONCE):
            image = self._journal.queue.first()
            if image is None or self._ended.is_set():
                return number > 0
            self._send(image)
        return True

    def _send(self, image: QueuedImage) -> None:
        edge = image.edge if len(image.edge) <= MAX_EDGE else _shortened(image.edge)
        headers = {
            "content-type": "application/octet-stream",
            KEY_HEADER: image.digest,
            NAME_HEADER: quote(image.name)[:1_024],
            EDGE_HEADER: edge,
        }
        queue = self._journal.queue
        try:
            answer = self._link.post(REVIEW_PATH, image.content, headers)
        except LinkError as error:
            if error.midway:
                queue.failed(image.seq)
            raise
        if answer.status in {200, 202}:
            queue.sent(image.seq)
        elif answer.status in REFUSALS:
            logger.warning("%s: the central machine refuses it: %s", image.name, answer.problem())
            queue.refuse(image.seq, answer.problem())
        else:
            if answer.status == 500:
                queue.failed(image.seq)
            raise _trouble(answer)

    def _ask(self) -> bool:
        """Fetch decisions; returns whether there were any."""
        digests = self._journal.queue.undecided(ASKED_AT_ONCE)
        if not digests:
            return False
        body = json.dumps({"keys": digests}).encode()
        answer = self._link.post(DECISIONS_PATH, body, {"content-type": "application/json"})
        if answer.status != 200:
            raise _trouble(answer)
        said = answer.document()
        decided, unknown = said.get("decided"), said.get("unknown")
        if not isinstance(decided, dict) or not isinstance(unknown, list):
            raise self._nonsense()
        asked, any_settled = set(digests), False
        answered = {digest: decided[digest] for digest in decided if digest in asked}
        for digest, opinion in answered.items():
            if _can_be_told(opinion):
                any_settled |= self._journal.settle(digest, opinion)
        forgotten = [one for one in unknown if isinstance(one, str) and one in asked]
        if forgotten:
            logger.warning("the central machine forgot %d images, sent again", len(forgotten))
            self._journal.queue.forgotten(forgotten)
        if any_settled:
            self._settled()
        if not all(map(_can_be_told, answered.values())):
            raise self._nonsense()
        return any_settled

    def _nonsense(self) -> UplinkError:
        return UplinkError(f"{self._link.url} does not answer as a central machine would")

    def _refill(self) -> None:
        """Queue images that found no room before, as long as their files are there."""
        queue = self._journal.queue
        for seq, name, digest in queue.unqueued(SENT_AT_ONCE):
            content = image_bytes(self._folder, name, digest)
            if not content:
                logger.warning("%s: gone before it could be queued for review", name)
                queue.give_up(seq, "its file was gone before there was room in the queue")
            elif len(content) > queue.limits.max_bytes:
                logger.warning("%s: larger than the review queue", name)
                queue.give_up(seq, "it is larger than the queue; raise --queue-mib")
            elif not queue.fill(seq, content):
                return


def _can_be_told(opinion: object) -> bool:
    """Tell whether an opinion has a verdict and sinks can write it: JSON without NaN, in UTF-8."""
    verdict = opinion.get("verdict") if isinstance(opinion, dict) else None
    if not isinstance(verdict, str) or verdict not in VERDICTS:
        return False
    try:
        json.dumps(opinion, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def image_bytes(folder: Path, name: str, digest: str) -> bytes:
    """Return the bytes of an image that was inspected, b"" where the file is gone or another."""
    file = ImageFile(0, folder / name, name)
    try:
        content = read_image_file(file, ImageLimits().max_bytes)
    except ImageRefusedError:
        return b""
    return content if hashlib.sha256(content).hexdigest() == digest else b""


def _trouble(answer: Answer) -> UplinkError:
    hint = ""
    if answer.status in {401, 403}:
        hint = "; set PENSTOCK_CENTRAL_TOKEN to a token that it knows, with the scope 'score'"
    return UplinkError(f"{answer.problem()}{hint}", answer.retry_after)


def _shortened(edge: str) -> str:
    said = json.loads(edge)
    return json.dumps({name: said[name] for name in ("verdict", "score", "kind", "model")})
