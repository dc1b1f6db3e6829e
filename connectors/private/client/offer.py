"""What a scorer offers: everything a data owner needs to have rows scored by one model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.encoding import Encoding
from tasks.privacy.plan import Plan
from tasks.privacy.readout import Readout

Reals = NDArray[np.float64]

FORMAT = "penstock-private-offer"
VERSION = 1
MOST_BYTES = 16 * 2**20
"""An offer that is larger is not read."""


class OfferError(ValueError):
    """A file is no offer, or not one of this version."""


@dataclass(frozen=True)
class Offer:
    """The client's half of a compiled model; holds no weights and no key.

    Attributes:
        name: Of the model.
        plan: What both sides agree on.
        encoding: From raw columns to what is encrypted.
        offset: float64 [O], added to decrypted scores.
        readout: From scores to probabilities and bands.
        flooding: Deviation of the noise to add before scores leave their owner; 0: they may not.
        releases: How many values a key may release.
        error: Largest error of a score, proved for rows such as the model was compiled on.
        canaries: float64 [n, F], rows whose scores are known.
        canary_scores: float64 [n, O], those scores.
        scorer: Ed25519 key that answers are signed with, hexadecimal; empty: not known yet.
    """

    name: str
    plan: Plan
    encoding: Encoding
    offset: Reals
    readout: Readout
    flooding: float
    releases: int
    error: float
    canaries: Reals
    canary_scores: Reals
    scorer: str = ""

    @property
    def public(self) -> dict[str, Any]:
        """All but name, plan and the scorer's key, as JSON data; the plan's digest covers it."""
        return {
            "encoding": self.encoding.to_dict(),
            "offset": self.offset.tolist(),
            "readout": self.readout.to_dict(),
            "flooding": self.flooding,
            "releases": self.releases,
            "error": self.error,
            "canaries": self.canaries.tolist(),
            "canary_scores": self.canary_scores.tolist(),
        }

    def to_json(self) -> str:
        """Return the offer as text."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "plan": self.plan.to_dict(),
            **self.public,
            "scorer": self.scorer,
        }
        return json.dumps(data, indent=1, allow_nan=False)

    @classmethod
    def of(cls, name: str, plan: Plan, public: Mapping[str, Any], scorer: str = "") -> Offer:
        """Return an offer of what `public` gives; nothing is checked."""
        return cls(
            name=name,
            plan=plan,
            encoding=Encoding.from_dict(public["encoding"]),
            offset=np.asarray(public["offset"], np.float64),
            readout=Readout.from_dict(public["readout"]),
            flooding=float(public["flooding"]),
            releases=int(public["releases"]),
            error=float(public["error"]),
            canaries=np.asarray(public["canaries"], np.float64),
            canary_scores=np.asarray(public["canary_scores"], np.float64),
            scorer=scorer,
        )

    @classmethod
    def from_json(cls, text: str) -> Offer:
        """Read an offer.

        Raises:
            OfferError: When the text is none.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            known = (data["format"], data["version"]) == (FORMAT, VERSION)
            offer = cls.of(
                str(data["name"]), Plan.from_dict(data["plan"]), data, str(data["scorer"])
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise OfferError(f"this is no offer of a scorer ({error!r})") from error
        if not known:
            raise OfferError(f"offers of version {data['version']} are not read here")
        offer.check()
        return offer

    def check(self) -> None:
        """Check that the parts fit each other.

        Raises:
            OfferError: They do not.
        """
        scores, columns = self.plan.scores, len(self.encoding.columns)
        n = len(self.canaries)
        shapes = {
            "offset": (self.offset, (scores,)),
            "canaries": (self.canaries, (n, columns)),
            "canary_scores": (self.canary_scores, (n, scores)),
        }
        for name, (value, shape) in shapes.items():
            if value.shape != shape or not np.isfinite(value).all():
                raise OfferError(f"the offer's {name} are not {list(shape)} finite numbers")
        if not (0 < self.error < np.inf and 0 <= self.flooding < np.inf and self.releases >= 0):
            raise OfferError("the offer's error, flooding and releases are no numbers that can be")
        if self.encoding.inputs != self.plan.inputs:
            raise OfferError("the offer's encoding and plan do not fit each other")
        if not n:
            raise OfferError("the offer has no canaries, so a wrong model could not be told")

    @classmethod
    def read(cls, path: Path) -> Offer:
        """Read an offer from a file.

        Raises:
            OfferError: When the file is none.
        """
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise OfferError(f"{path} has {size} bytes; an offer has at most {MOST_BYTES}")
        return cls.from_json(path.read_text(encoding="utf-8"))
