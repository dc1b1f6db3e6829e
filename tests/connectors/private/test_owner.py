"""Owner and scorer together: what comes back decrypted is the score, within what was proved."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.private.bundle import make_offer
from connectors.private.client.offer import Offer, OfferError
from connectors.private.client.owner import AnswerError, Owner
from connectors.private.client.seal import Seal
from kernels.ring.packing import WordError
from tasks.privacy.compile import compile_model
from tasks.privacy.encoding import RowError, plain_encoding
from tasks.privacy.model import linear_model
from tasks.privacy.parameters import SETS
from tasks.privacy.score import EncryptedScorer, RequestError
from tasks.privacy.simulate import simulate
from tests.tasks.privacy.models import KINDS, made, rows


class Pair:
    """An owner and a scorer of one compiled model."""

    def __init__(self, model, calibration) -> None:
        self.model = model
        self.compiled = compile_model(self.model, calibration)
        self.offer = make_offer(self.compiled, "name")
        self.owner = Owner(self.offer, Seal(self.compiled.plan.parameters))
        self.scorer = EncryptedScorer(self.compiled.plan, self.compiled.whole)

    def scores(self, data, packing=None):
        sealed = self.owner.encrypt(data, packing)
        return self.owner.decrypt(
            sealed, self.scorer.score(sealed.packing, sealed.rows, sealed.content)
        )


@pytest.fixture(scope="module")
def pairs():
    return {kind: Pair(made(kind), rows(500)) for kind in KINDS}


class TestScores:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("n", [1, 130])
    def test_are_within_what_was_proved(self, pairs, kind, n):
        pair = pairs[kind]
        data = rows(500)[:n]
        for packing in pair.compiled.plan.packings:
            found = pair.scores(data, packing)
            assert found.shape == (n, pair.model.scores)
            error = np.abs(found - pair.model.score(data)).max()
            assert error <= pair.compiled.proof.likely_calibration
            # and the rest of the difference is noise, not rounding
            proved = pair.compiled.proof.likely
            np.testing.assert_allclose(found, simulate(pair.compiled, data), atol=proved)

    @pytest.mark.parametrize("kind", ["linear", "square"])
    def test_more_rows_than_a_ciphertext_holds(self, pairs, kind):
        pair = pairs[kind]
        n = pair.compiled.plan.capacity(pair.compiled.plan.packings[0]) + 3
        data = rows(n, 5)
        error = np.abs(pair.scores(data) - pair.model.score(data)).max()
        assert error <= pair.compiled.proof.likely

    def test_rows_longer_than_a_ciphertext_take_several(self):
        rng = np.random.default_rng(0)
        data = rng.normal(size=(40, 9_000))
        model = linear_model(plain_encoding(data), rng.normal(size=(2, 9_000)) / 95, [1.0, 2.0])
        pair = Pair(model, data)
        assert pair.compiled.plan.parts == 3
        found = pair.scores(data[:3], "products")
        assert np.abs(found - model.score(data[:3])).max() <= pair.compiled.proof.likely_calibration
        assert pair.compiled.plan.packing_for(3) == "products"

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_at_the_very_limits_do_not_wrap(self, pairs, kind):
        """The corner of the box that drives the first score highest, and its opposite."""
        pair = pairs[kind]
        encoding = pair.model.encoding
        corner = np.sign(pair.compiled.whole.weights[0]) * encoding.limits
        raw = np.array([corner, -corner]) * encoding.scale + encoding.mean
        error = np.abs(pair.scores(raw) - pair.model.score(raw)).max()
        assert error <= pair.compiled.proof.likely

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.floats(-3, 3), min_size=7, max_size=7), st.sampled_from(["rows", "products"])
    )
    def test_any_row(self, pairs, row, packing):
        pair = pairs["linear"]
        error = np.abs(pair.scores([row], packing) - pair.model.score([row])).max()
        assert error <= pair.compiled.proof.likely

    def test_rows_beyond_the_limits_are_not_encrypted(self, pairs):
        with pytest.raises(RowError, match="outside"):
            pairs["linear"].owner.encrypt(np.full((1, 7), 1e9))
        with pytest.raises(ValueError, match="no rows"):
            pairs["linear"].owner.encrypt(np.zeros((0, 7)))


class TestScorer:
    def test_requests_of_another_shape_are_refused(self, pairs):
        scorer = pairs["linear"].scorer
        sealed = pairs["linear"].owner.encrypt(rows(3))
        for packing, n, content, said in (
            ("slots", 3, sealed.content, "'slots' is none of"),
            ("products", 0, sealed.content, "0 rows"),
            ("products", 3, sealed.content[:-1], "take .* bytes, not"),
            ("rows", 3, sealed.content, "take .* bytes, not"),
            ("products", 10**9, sealed.content, "take .* bytes, not"),
        ):
            with pytest.raises(RequestError, match=said):
                scorer.score(packing, n, content)

    def test_bytes_that_are_no_ring_elements_are_refused(self, pairs):
        sealed = pairs["linear"].owner.encrypt(rows(3))
        wrong = b"\xff" * 7 + sealed.content[7:]
        with pytest.raises(WordError, match="not below prime 0"):
            pairs["linear"].scorer.score("products", 3, wrong)

    def test_cannot_decrypt_nor_load_what_could(self):
        """A fresh interpreter scores, and has loaded neither TenSEAL nor the client."""
        program = (
            "import sys\n"
            "from tasks.privacy.compile import compile_model\n"
            "from tasks.privacy.score import EncryptedScorer\n"
            "from tests.tasks.privacy.models import made, rows\n"
            "c = compile_model(made('linear'), rows(50))\n"
            "n = c.plan.request_bytes('rows', 5)\n"
            "EncryptedScorer(c.plan, c.whole).score('rows', 5, bytes(n))\n"
            "wrong = [m for m in sys.modules if 'tenseal' in m or m.startswith('connectors')]\n"
            "assert not wrong, wrong\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


class TestOwner:
    def test_answers_of_another_length_are_refused(self, pairs):
        pair = pairs["linear"]
        sealed = pair.owner.encrypt(rows(3))
        answer = pair.scorer.score(sealed.packing, sealed.rows, sealed.content)
        with pytest.raises(AnswerError, match="bytes, not"):
            pair.owner.decrypt(sealed, answer + b"0")
        with pytest.raises(WordError):
            pair.owner.decrypt(sealed, b"\xff" * len(answer))

    def test_a_key_of_other_parameters_is_refused(self, pairs):
        with pytest.raises(ValueError, match="make a key for it"):
            Owner(pairs["linear"].offer, Seal(SETS["n8192-120"]))


class TestOffer:
    @pytest.mark.parametrize("kind", KINDS)
    def test_comes_back_from_json_and_holds_no_weights(self, pairs, kind):
        offer = pairs[kind].offer
        text = offer.to_json()
        assert Offer.from_json(text).to_json() == text
        weight = int(pairs[kind].compiled.whole.weights[0, 0])
        assert str(weight) not in text

    def test_other_texts_are_refused(self, pairs, tmp_path):
        text = pairs["linear"].offer.to_json()
        for wrong in ("", "[]", "{}", text.replace('"inputs": 7', '"inputs": 8')):
            with pytest.raises(OfferError):
                Offer.from_json(wrong)
        with pytest.raises(OfferError, match="version 2"):
            Offer.from_json(text.replace('"version": 1', '"version": 2'))
        with pytest.raises(OfferError, match="n4096-54"):
            Offer.from_json(text.replace('"n4096-54"', '"n512-60"'))
        path = tmp_path / "offer.json"
        path.write_text(text)
        assert Offer.read(path).name == "name"
        path.write_bytes(b" " * (17 * 2**20))
        with pytest.raises(OfferError, match="at most"):
            Offer.read(path)
