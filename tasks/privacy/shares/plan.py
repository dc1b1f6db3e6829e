"""What both parties must agree on before they score together. Everything in it is public."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.signs import MOST_BITS
from tasks.privacy.encoding import Encoding

Words = NDArray[np.uint64]

Party = Literal[0, 1]
Holder = Literal["party-0", "party-1", "shared"]
"""Who knows the weights: one party, or nobody because each has a uniform share."""
Reveal = Literal["score", "decision"]
"""What is opened: the score, or only whether it reaches the model's threshold."""
Receivers = Literal["party-0", "party-1", "both"]

HIDDEN_WIDTH = 8


class PlanError(ValueError):
    """A plan is none, or a model cannot be scored jointly; says what could be."""


@dataclass(frozen=True)
class JointPlan:
    """A compiled model without its weights.

    Attributes:
        encodings: From each party's raw columns to its inputs.
        holder: Who knows the weights.
        reveal: What is opened.
        receivers: To whom.
        scores: Scores per row, O.
        input_bits: An input of 1 is ``2**input_bits`` steps.
        weight_bits: A weight of 1 is ``2**weight_bits`` steps.
        width: Bytes of a word that travels: what is computed with inputs fits ``8 * width`` bits.
        signs: For each hidden unit, whether its square adds (1) or subtracts (-1); empty in a
            linear model. Known to both parties: sorted, so that they tell two numbers and no more.
        cut: Bits that hidden units lose before they are squared.
        dropped: Lowest bits of a score that are not revealed.
        parts: SHA-256 of either party's part of the weights, hexadecimal, each salted.
    """

    encodings: tuple[Encoding, Encoding]
    holder: Holder
    reveal: Reveal
    receivers: Receivers
    scores: int
    input_bits: int
    weight_bits: int
    width: int
    signs: tuple[int, ...] = ()
    cut: int = 0
    dropped: int = 0
    parts: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        """Check what was read.

        Raises:
            PlanError: On a value that cannot be.
        """
        kinds = {"holder": Holder, "reveal": Reveal, "receivers": Receivers}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise PlanError(f"{name} is one of {get_args(kind)}, not {getattr(self, name)!r}")
        if not 1 <= self.width <= 8 or self.input_bits < 1 or self.weight_bits < 1:
            raise PlanError("width is 1 to 8 bytes, input_bits and weight_bits at least 1")
        if self.scores < 1 or (self.signs and self.scores != 1):
            raise PlanError("a model has one score or, if it is linear, more")
        if any(sign not in {1, -1} for sign in self.signs) or bool(self.signs) != (self.cut > 0):
            raise PlanError("signs are 1 or -1, and cut is positive where there are some")
        most = 8 * self.score_width - 1 if self.reveal == "score" else 0
        if not 0 <= self.dropped <= most:
            raise PlanError("dropped is 0 or, where scores are revealed, fewer bits than a score's")

    @property
    def inputs(self) -> tuple[int, int]:
        """Inputs of either party."""
        return self.encodings[0].inputs, self.encodings[1].inputs

    @property
    def units(self) -> int:
        """Weighted sums per row: hidden units or scores."""
        return len(self.signs) or self.scores

    @property
    def score_bits(self) -> int:
        """A score of 1 is so many bits of steps."""
        product = self.input_bits + self.weight_bits
        return 2 * (product - self.cut) if self.signs else product

    @property
    def score_width(self) -> int:
        """Bytes of a score's share."""
        return HIDDEN_WIDTH if self.signs else self.width

    @property
    def revealed_bits(self) -> int:
        """Bits of a score's share that are sent."""
        return 8 * self.score_width - self.dropped

    @property
    def sign_bits(self) -> int:
        """The ring in which a score is compared with the threshold."""
        return min(8 * self.score_width, MOST_BITS)

    @property
    def sign_words(self) -> Words:
        """uint64 [H]: 1 or 2**64 - 1."""
        return np.array(self.signs, np.int64).view(np.uint64)

    @cached_property
    def crossings(self) -> tuple[tuple[Party, Party], ...]:
        """Whose inputs meet whose weights: (party of the inputs, party of the weights)."""
        every: tuple[tuple[Party, Party], ...] = ((1, 0), (0, 1))
        knowing = {"party-0": (0,), "party-1": (1,), "shared": (0, 1)}[self.holder]
        return tuple(one for one in every if one[1] in knowing and self.inputs[one[0]])

    def receives(self, party: Party) -> bool:
        """Whether a party gets what is opened."""
        return self.receivers in {"both", f"party-{party}"}

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return {
            "encodings": [one.to_dict() for one in self.encodings],
            "holder": self.holder,
            "reveal": self.reveal,
            "receivers": self.receivers,
            "scores": self.scores,
            "input_bits": self.input_bits,
            "weight_bits": self.weight_bits,
            "width": self.width,
            "signs": list(self.signs),
            "cut": self.cut,
            "dropped": self.dropped,
            "parts": list(self.parts),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JointPlan:
        """Rebuild from `to_dict`.

        Raises:
            PlanError: When it is no plan.
        """
        try:
            first, second = (Encoding.from_dict(one) for one in data["encodings"])
            parts = cast("tuple[str, str]", tuple(str(one) for one in data["parts"]))
            return cls(
                (first, second),
                data["holder"],
                data["reveal"],
                data["receivers"],
                scores=int(data["scores"]),
                input_bits=int(data["input_bits"]),
                weight_bits=int(data["weight_bits"]),
                width=int(data["width"]),
                signs=tuple(int(sign) for sign in data["signs"]),
                cut=int(data["cut"]),
                dropped=int(data["dropped"]),
                parts=parts,
            )
        except PlanError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"no plan of joint scoring of this version ({error!r}); compile the model again"
            ) from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it, hexadecimal: what parties and dealer compare."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
