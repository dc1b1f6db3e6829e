"""A scorer that wants more than it may: what its offer may claim, and what its answers may be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from connectors.private.bundle import BundleError, make_offer, read_bundle, write_bundle
from connectors.private.client.key_file import KeyFile
from connectors.private.client.offer import Offer, OfferError
from connectors.private.client.session import Session
from tasks.privacy.compile import CompileOptions, compile_model
from tests.tasks.privacy.models import made, rows


@pytest.fixture(scope="module")
def compiled():
    return compile_model(made("linear"), rows(500))


@pytest.fixture(scope="module")
def key():
    return KeyFile.new("bank-a", "n4096-54")


def test_an_error_that_would_void_the_canaries_is_not_taken(compiled, key):
    """By such an offer a scorer could answer with the secret key, coefficient by coefficient."""
    offer = replace(make_offer(compiled, "small"), error=1e9)
    with pytest.raises(ValueError, match=r"may be off by 1e\+09; more than 0\.01"):
        Session(offer, key)
    Session(offer, key, most_error=1e10)


@pytest.mark.parametrize(
    ("member", "value"),
    [("error", 0.0), ("error", -1.0), ("flooding", -1.0), ("releases", -1)],
)
def test_numbers_that_cannot_be_are_refused(compiled, member, value):
    data = json.loads(make_offer(compiled, "small").to_json()) | {member: value}
    with pytest.raises(OfferError, match="no numbers that can be"):
        Offer.from_json(json.dumps(data))
    for wrong in ("Infinity", "NaN", "1e999"):
        text = json.dumps(data).replace(f'"{member}": {value}', f'"{member}": {wrong}')
        with pytest.raises(OfferError):
            Offer.from_json(text)


def test_canaries_are_nobodys_rows(compiled):
    offer = make_offer(compiled, "small")
    known = {tuple(row) for row in rows(500).tolist()}
    assert not known & {tuple(row) for row in offer.canaries.tolist()}
    for column in range(7):
        assert not set(rows(500)[:, column]) & set(offer.canaries[:, column])
    np.testing.assert_allclose(offer.canary_scores, made("linear").score(offer.canaries))


def test_every_canary_is_used(compiled, key):
    session = Session(make_offer(compiled, "small"), key)
    used = {place for _ in range(60) for place in session.seal(rows(2)).places if place < 0}
    assert used == set(range(-16, 0))


@pytest.mark.parametrize("member", ["offset", "encoding", "readout", "canaries", "error"])
def test_the_digest_covers_all_that_an_owner_is_told(compiled, tmp_path, member):
    write_bundle(tmp_path, compiled, "small")
    path = tmp_path / "offer.json"
    data = json.loads(path.read_text())
    changed = {
        "offset": [0.31],
        "encoding": data["encoding"] | {"mean": [0.1] * 7},
        "readout": data["readout"] | {"thresholds": [["review", 0.2]]},
        "canaries": (np.array(data["canaries"]) * 0.9).tolist(),
        "error": data["error"] * 2,
    }
    path.write_text(json.dumps(data | {member: changed[member]}))
    with pytest.raises(BundleError, match="not of one model"):
        read_bundle(tmp_path)


def test_a_budget_is_of_values_not_of_answers(key):
    """Sixteen thousand rows of one answer are so many chances to learn the key."""
    few, many = (
        compile_model(
            made("linear"), rows(200), CompileOptions("shareable", tolerance=1.0, releases=n)
        )
        for n in (1_024, 1_024 * 64)
    )
    assert many.proof.flooding / few.proof.flooding > 2 or (
        many.plan.parameters != few.plan.parameters
    )
    assert many.proof.releases == 1_024 * 64
