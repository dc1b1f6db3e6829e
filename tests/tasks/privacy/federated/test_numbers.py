"""Steps and random numbers: exact, refused where not, and distributed as they say."""

from __future__ import annotations

import math
import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.privacy.federated.expander import chosen, normal_steps, words
from tasks.privacy.federated.quantise import MOST, Quantiser, RangeError


class TestQuantiser:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(-8, 8), min_size=1, max_size=20), st.integers(0, 40))
    def test_rounds_to_the_nearest_step(self, values, bits):
        quantiser = Quantiser(8.0, bits)
        steps = quantiser.steps(np.array(values), "b", str)
        assert np.abs(quantiser.values(steps) - values).max() <= 2.0 ** -(bits + 1)
        assert np.abs(steps).max() <= quantiser.largest

    @pytest.mark.parametrize("value", [8.0001, -9.0, math.inf, -math.inf, math.nan])
    def test_refuses_what_lies_outside_and_says_where(self, value):
        with pytest.raises(RangeError, match="branch 'north': entry 2 is") as caught:
            Quantiser(8.0).steps(np.array([0.0, 8.0, value]), "north", lambda i: f"entry {i}")
        assert (caught.value.branch, caught.value.parameter) == ("north", "entry 2")

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 48), st.integers(0, 40), st.integers(0, 40))
    def test_what_has_room_cannot_wrap(self, bits, log_limit, log_weight):
        quantiser, weights = Quantiser(2.0**log_limit, bits), 1 << log_weight
        try:
            quantiser.require_room(weights, "it")
        except ValueError as error:
            assert quantiser.largest * weights > MOST
            fewer = int(str(error).split("take ")[1].split()[0])
            assert (quantiser.largest >> fewer) * weights <= MOST
        else:
            assert quantiser.largest * weights <= MOST

    def test_settings_are_checked(self):
        for wrong in (Quantiser, lambda limit: Quantiser(1.0, int(limit))):
            with pytest.raises(ValueError, match="positive limit and 0 to 48 bits"):
                wrong(-1.0)


class TestWords:
    def test_are_the_stream_of_the_cipher(self):
        key = bytes(range(32))
        cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        blocks = cipher.update(b"".join(i.to_bytes(16, "big") for i in range(50)))
        np.testing.assert_array_equal(words(key, 100), np.frombuffer(blocks, "<u8"))
        np.testing.assert_array_equal(words(key, 100)[:7], words(key, 7))
        with pytest.raises(ValueError, match="32 bytes, not 16"):
            words(bytes(16), 1)


class TestDraws:
    KEY = bytes(range(1, 33))

    def test_rows_take_part_with_their_probability(self):
        drawn = len(chosen(self.KEY, 200_000, 0.03))
        assert abs(drawn - 6_000) < 5 * math.sqrt(200_000 * 0.03 * 0.97)
        np.testing.assert_array_equal(chosen(self.KEY, 5, 1.0), np.arange(5))
        assert not len(chosen(self.KEY, 1_000, 0.0))

    def test_noise_is_normal(self):
        noise = normal_steps(self.KEY, 100_000, 5_000.0)
        assert stats.kstest(noise / 5_000.0, "norm").pvalue > 0.01
        assert noise.dtype == np.int64

    def test_shares_of_noise_add_up_to_it(self):
        branches = 9
        parts = [
            normal_steps(secrets.token_bytes(32), 50_000, 1e6 / math.sqrt(branches))
            for _ in range(branches)
        ]
        deviation = np.sum(parts, axis=0).std()
        assert deviation == pytest.approx(1e6, rel=5 / math.sqrt(2 * 50_000))

    def test_the_tail_is_within_what_sums_keep_room_for(self, monkeypatch):
        from tasks.privacy.federated import expander
        from tasks.privacy.federated.plan import TAIL

        low, high, one = 0, (1 << 64) - 1, 1
        edges = np.array([low, one, high, high - 1, low, low, high, high], np.uint64)
        monkeypatch.setattr(expander, "words", lambda key, count: edges)
        steps = normal_steps(self.KEY, 4, 1e9)
        assert 11e9 < np.abs(steps).max() <= TAIL * 1e9
        assert steps[0] == -steps[1]
        assert np.abs(steps[2:]).max() <= 1
