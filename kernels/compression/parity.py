"""The proof that an exported file decides as the trained module: made once, checkable anywhere.

A `ParityRecord` lies beside the file. It keeps, for each image of the proof, what the trained
module, the float file and the shipped file answered. `check_parity` runs the shipped file again on
another machine and holds its answers against the record. It needs numpy and ONNX Runtime alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compression.sessions import open_session

VERSION = 1
MAX_RECORD_BYTES = 64 * 2**20
MAX_IMAGES = 100_000
Answer = tuple[float, int]
"""Score and decision."""


class ParityError(ValueError):
    """A record that is broken, of another file, or of other images; says which."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two lists of answers are apart.

    Attributes:
        score_max: Largest difference of two scores of one image.
        flips: Images that are decided otherwise.
        table: ``"0->2"`` and so on -> number of images decided so by the first and the second.
    """

    score_max: float
    flips: int
    table: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRecord:
    """What the proof found.

    Attributes:
        model: SHA-256 of the shipped file, "" before it is sealed.
        images: SHA-256 of each image, see `image_digest`.
        trained: Answer of the trained module to each.
        float32: Answer of the exported file before quantisation.
        shipped: Answer of the shipped file.
        runtime: What ran it: version of ONNX Runtime and instruction set, for people.
        facts: What else is to be kept with it: how the file was quantised.
    """

    model: str
    images: tuple[str, ...]
    trained: tuple[Answer, ...]
    float32: tuple[Answer, ...]
    shipped: tuple[Answer, ...]
    runtime: str
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        counts = {len(x) for x in (self.images, self.trained, self.float32, self.shipped)}
        if len(counts) != 1 or counts == {0}:
            raise ParityError("a record needs one answer of each kind per image, and an image")

    @property
    def exported(self) -> Difference:
        """Trained module against float file."""
        return difference(self.trained, self.float32)

    @property
    def quantised(self) -> Difference:
        """Trained module against shipped file."""
        return difference(self.trained, self.shipped)

    def digest(self) -> str:
        """Return SHA-256 of all but ``model``: what the shipped file can carry of its record."""
        text = json.dumps(self._plain() | {"model": ""}, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """Return the record as JSON, with the summary that people look for."""
        compared = {"exported": self.exported, "quantised": self.quantised}
        summary = {
            name: asdict(one) | {"score_max": _number(one.score_max)}
            for name, one in compared.items()
        }
        full = {"version": VERSION, "summary": summary, "digest": self.digest(), **self._plain()}
        return json.dumps(full, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ParityRecord:
        """Read a record.

        Raises:
            ParityError: When it is too large, newer, broken or was changed.
        """
        if len(text) > MAX_RECORD_BYTES:
            raise ParityError(f"the parity record is larger than {MAX_RECORD_BYTES:,} characters")
        try:
            full = json.loads(text)
            version = full["version"]
            made = cls(
                model=str(full["model"]),
                images=tuple(str(one) for one in full["images"]),
                trained=_answers(full["trained"]),
                float32=_answers(full["float32"]),
                shipped=_answers(full["shipped"]),
                runtime=str(full["runtime"]),
                facts=dict(full["facts"]),
            )
            told = full["digest"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ParityError(f"the parity record is broken ({error!r}); write it anew") from error
        if version != VERSION:
            raise ParityError(
                f"parity record of version {version!r}, this program reads {VERSION}; "
                "use the program that wrote it or write it anew"
            )
        if made.digest() != told:
            raise ParityError("the parity record was changed after it was written; write it anew")
        return made

    def _plain(self) -> dict[str, Any]:
        plain = asdict(self)
        for name in ("trained", "float32", "shipped"):
            plain[name] = [(_number(score), decision) for score, decision in plain[name]]
        return plain


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """How a file decided on this machine, against its record.

    Attributes:
        images: Images that were run.
        against_shipped: Record of the shipped file against this machine.
        against_trained: Record of the trained module against this machine.
    """

    images: int
    against_shipped: Difference
    against_trained: Difference

    @property
    def same(self) -> bool:
        """Whether every image was decided as when the file was made."""
        return self.against_shipped.flips == 0


def difference(first: Sequence[Answer], second: Sequence[Answer]) -> Difference:
    """Compare the answers to the same images; scores that are no number on both sides agree."""
    table: dict[str, int] = {}
    worst, flips = 0.0, 0
    for (score, decision), (other, decided) in zip(first, second, strict=True):
        if not (score == other or (math.isnan(score) and math.isnan(other))):
            gap = abs(score - other)
            worst = math.inf if math.isnan(gap) else max(worst, gap)
        flips += decision != decided
        key = f"{decision}->{decided}"
        table[key] = table.get(key, 0) + 1
    return Difference(worst, flips, dict(sorted(table.items())))


def image_digest(pixels: NDArray[np.generic]) -> str:
    """Return SHA-256 of type, shape and values."""
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def answers_of(
    model: bytes,
    images: Iterable[NDArray[np.generic]],
    *,
    threads: int = 1,
    level: str = "ORT_ENABLE_ALL",
) -> list[Answer]:
    """Run a file on images one by one.

    Args:
        model: ONNX file with one input and the outputs ``score`` and ``verdict``.
        images: As its input takes them.
        threads: Of ONNX Runtime.
        level: How far ONNX Runtime may fuse operators.
    """
    session = open_session(model, threads=threads, level=level)
    name = session.get_inputs()[0].name
    found = []
    for image in images:
        score, verdict = session.run(["score", "verdict"], {name: image})
        found.append((float(score), int(verdict)))
    return found


def check_parity(
    model: bytes,
    record: ParityRecord,
    images: Sequence[NDArray[np.generic]],
    *,
    threads: int = 1,
) -> ParityCheck:
    """Run the shipped file on images of its record, here and now.

    Args:
        model: The shipped file.
        record: What lies beside it.
        images: Any of the record's images, in any order.
        threads: Of ONNX Runtime.

    Raises:
        ParityError: When the record is of another file, or an image is not in it.
    """
    require_model(model, record)
    places = {digest: place for place, digest in enumerate(record.images)}
    try:
        chosen = [places[image_digest(image)] for image in images]
    except KeyError as error:
        raise ParityError(
            "an image is not among those of the record; give the files that it was made with, "
            "decoded the same way"
        ) from error
    if not chosen:
        raise ParityError("no images; give those that the record was made with")
    now = answers_of(model, images, threads=threads)
    return ParityCheck(
        len(chosen),
        difference([record.shipped[i] for i in chosen], now),
        difference([record.trained[i] for i in chosen], now),
    )


def require_model(model: bytes, record: ParityRecord) -> None:
    """Raise `ParityError` unless the record was made for exactly these bytes."""
    digest = hashlib.sha256(model).hexdigest()
    if digest != record.model:
        raise ParityError(
            f"the file ({digest[:12]}) is not the one of its parity record "
            f"({record.model[:12] or 'none'}); copy both anew, or export again"
        )


def _answers(values: Iterable[Any]) -> tuple[Answer, ...]:
    return tuple((float(score), int(decision)) for score, decision in values)


def _number(value: float) -> float | str:
    """JSON knows no infinity; `float` reads these words back."""
    return value if math.isfinite(value) else str(value)
