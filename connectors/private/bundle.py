"""A compiled model as two files: one for the scorer, one that is given to owners.

``scorer.json`` holds the weights and stays; ``offer.json`` holds what an owner needs. Neither holds
a key, and neither is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.private.client.documents import NAME
from connectors.private.client.offer import Offer
from infra.files import write_atomically
from tasks.privacy.compile import Compiled
from tasks.privacy.plan import Plan, WholeWeights, digest_of
from tasks.privacy.score import EncryptedScorer

FORMAT, VERSION = "penstock-private-scorer", 1
SCORER, OFFER, REPORT = "scorer.json", "offer.json", "report.json"
MOST_BYTES = 256 * 2**20


class BundleError(ValueError):
    """A folder holds no compiled model."""


@dataclass(frozen=True)
class ServedModel:
    """A compiled model, ready to score.

    Attributes:
        offer: What owners get.
        whole: What the scorer computes with.
    """

    offer: Offer
    whole: WholeWeights

    @property
    def plan(self) -> Plan:
        """What both sides agree on."""
        return self.offer.plan

    def scorer(self) -> EncryptedScorer:
        """Return what scores."""
        return EncryptedScorer(self.plan, self.whole)


def make_offer(compiled: Compiled, name: str) -> Offer:
    """Return the offer of a compiled model.

    Args:
        compiled: The model.
        name: What owners ask for.
    """
    return Offer.of(name, compiled.plan, compiled.public)


def write_bundle(folder: Path, compiled: Compiled, name: str) -> ServedModel:
    """Write a compiled model.

    Args:
        folder: Made if need be.
        compiled: The model.
        name: What owners ask for.

    Raises:
        BundleError: When the name cannot be one.
    """
    if not NAME.fullmatch(name):
        raise BundleError(f"{name!r} is no name for a model: {NAME.pattern}")
    offer = make_offer(compiled, name)
    folder.mkdir(parents=True, exist_ok=True)
    scorer = {"format": FORMAT, "version": VERSION, "whole": compiled.whole.to_dict()}
    write_atomically(folder / SCORER, json.dumps(scorer))
    write_atomically(folder / OFFER, offer.to_json())
    return ServedModel(offer, compiled.whole)


def read_bundle(folder: Path) -> ServedModel:
    """Read a compiled model.

    Raises:
        BundleError: When the folder holds none, or its two files are not of one model.
        OfferError: When the offer cannot be read.
    """
    path = folder / SCORER
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{path} is too large to be a compiled model")
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (data["format"], data["version"]) != (FORMAT, VERSION):
            raise BundleError(f"{path} is of version {data['version']}, which is not read here")
        whole = WholeWeights.from_dict(data["whole"])
    except FileNotFoundError:
        raise BundleError(
            f"{folder} holds no {SCORER}; make it with 'penstock private compile'"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} holds no compiled model ({error})") from None
    offer = Offer.read(folder / OFFER)
    if digest_of(offer.plan, whole, offer.public) != offer.plan.digest:
        raise BundleError(
            f"{SCORER} and {OFFER} in {folder} are not of one model; compile it again"
        )
    return ServedModel(offer, whole)
