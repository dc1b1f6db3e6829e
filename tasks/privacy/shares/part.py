"""One party's part of the weights: all of them, none of them, or a uniform share."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.shares.plan import JointPlan, Party, PlanError

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Part:
    """Shares modulo 2**64; both parties' add up to the whole numbers of the model.

    Attributes:
        weights: uint64 [H, G], over party 0's inputs and then party 1's.
        start: uint64 [H], added to the weighted sums.
        offset: uint64 [O], added to the scores of a model with hidden units.
        salt: 16 random bytes, so that the digest in the plan does not tell weights.
    """

    weights: Words
    start: Words
    offset: Words
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 over all of it, hexadecimal."""
        hashed = hashlib.sha256(self.salt)
        for array in (self.weights, self.start, self.offset):
            hashed.update(array.astype("<u8").tobytes())
        return hashed.hexdigest()

    def check(self, plan: JointPlan, party: Party) -> None:
        """Check that this is the party's part of the model of a plan.

        Raises:
            PlanError: When shapes or digest differ.
        """
        shape = (plan.units, sum(plan.inputs))
        offset = plan.scores if plan.signs else 0
        if self.weights.shape != shape or self.start.shape != (plan.units,):
            raise PlanError(f"weights of the part are not {list(shape)}; take the plan's own part")
        if self.offset.shape != (offset,) or self.digest != plan.parts[party]:
            raise PlanError(
                f"the part is not party {party}'s of this plan; plan and parts are made together"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data."""
        arrays = {"weights": self.weights, "start": self.start, "offset": self.offset}
        texts = {name: array.astype("<u8").tobytes().hex() for name, array in arrays.items()}
        return {**texts, "units": len(self.weights), "salt": self.salt.hex()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Part:
        """Rebuild from `to_dict`.

        Raises:
            PlanError: When it is no part.
        """
        try:
            words = {
                name: np.frombuffer(bytes.fromhex(data[name]), "<u8").astype(np.uint64)
                for name in ("weights", "start", "offset")
            }
            weights = words["weights"].reshape(int(data["units"]), -1)
            return cls(weights, words["start"], words["offset"], bytes.fromhex(data["salt"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"no part of a model for joint scoring ({error})") from error


def split(weights: Words, start: Words, offset: Words, holder: str) -> tuple[Part, Part]:
    """Return both parties' parts of whole numbers.

    Args:
        weights: uint64 [H, G].
        start: uint64 [H].
        offset: uint64 [O] or [0].
        holder: Who gets all; ``shared``: each a uniform share.
    """
    first = [_share(array, holder) for array in (weights, start, offset)]
    one = Part(first[0], first[1], first[2])
    return one, Part(weights - one.weights, start - one.start, offset - one.offset)


def _share(whole: Words, holder: str) -> Words:
    """Return party 0's share."""
    if holder == "shared":
        return np.frombuffer(secrets.token_bytes(whole.nbytes), np.uint64).reshape(whole.shape)
    return whole if holder == "party-0" else np.zeros_like(whole)
