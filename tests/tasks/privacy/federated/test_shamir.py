"""Secret sharing against its definition."""

from __future__ import annotations

import math
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.federated.shamir import PRIME, SHARE_BYTES, ShareError, combine, split

SECRETS = st.binary(min_size=32, max_size=32)


class TestShares:
    @settings(max_examples=40, deadline=None)
    @given(SECRETS, st.integers(1, 12), st.data())
    def test_any_threshold_of_them_give_the_secret_back(self, secret, count, data):
        threshold = data.draw(st.integers(1, count))
        shares = split(secret, range(1, count + 1), threshold)
        kept = data.draw(st.permutations(range(1, count + 1)))[:threshold]
        assert combine({place: shares[place] for place in kept}, threshold) == secret
        assert combine(shares, threshold) == secret

    def test_are_values_of_a_polynomial_of_the_degree(self):
        """The differences of order t vanish, those of order t - 1 do not."""
        threshold = 5
        shares = split(secrets.token_bytes(32), range(1, 12), threshold)
        values = [int.from_bytes(shares[place], "big") for place in range(1, 12)]

        def differences(order):
            signed = [(-1) ** i * math.comb(order, i) for i in range(order + 1)]
            ends = range(len(values) - order)
            return [sum(s * values[e + i] for i, s in enumerate(signed)) % PRIME for e in ends]

        assert set(differences(threshold)) == {0}
        assert 0 not in differences(threshold - 1)

    @settings(max_examples=20, deadline=None)
    @given(SECRETS, SECRETS)
    def test_one_fewer_fits_every_secret_alike(self, secret, other):
        """For each other secret there is one share with which the rest give that secret."""
        shares = split(secret, [1, 2, 3, 4], 4)
        known = {place: shares[place] for place in (1, 2, 3)}
        points = {0: int.from_bytes(other, "big")} | {
            place: int.from_bytes(share, "big") for place, share in known.items()
        }
        missing = 0
        for place, value in points.items():
            others = [other for other in points if other != place]
            above = math.prod(4 - other for other in others)
            below = math.prod(place - other for other in others)
            missing = (missing + value * above * pow(below, -1, PRIME)) % PRIME
        assert combine(known | {4: missing.to_bytes(SHARE_BYTES, "big")}, 4) == other

    def test_differ_each_time(self):
        assert split(bytes(32), [1, 2], 2) != split(bytes(32), [1, 2], 2)

    def test_modulus_is_the_first_prime_above_all_secrets(self):
        fermat = [n for n in range((1 << 256) + 1, PRIME + 1, 2) if pow(3, n - 1, n) == 1]
        assert fermat == [PRIME]
        assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 5, 7, 11, 13))


class TestRefusals:
    def test_too_few(self):
        shares = split(bytes(32), [1, 2, 3], 3)
        del shares[2]
        with pytest.raises(ShareError, match="2 shares do not make a secret, 3 do"):
            combine(shares, 3)

    def test_a_changed_one_is_noticed_where_one_is_spare(self):
        shares = split(bytes(32), [1, 2, 3], 2)
        shares[2] = (int.from_bytes(shares[2], "big") ^ 1).to_bytes(SHARE_BYTES, "big")
        with pytest.raises(ShareError, match="not of one secret"):
            combine(shares, 2)

    @pytest.mark.parametrize("share", [bytes(32), b"\xff" * 33, PRIME.to_bytes(33, "big")])
    def test_what_is_no_field_element(self, share):
        with pytest.raises(ShareError, match="place 1 is no field element"):
            combine({1: share, 2: bytes(33)}, 2)

    @pytest.mark.parametrize("places", [[1, 1], [0, 1], [1]])
    def test_places_that_do_not_fit(self, places):
        with pytest.raises(ValueError, match="distinct, from 1, and enough"):
            split(bytes(32), places, 2)
        with pytest.raises(ValueError, match="32 bytes, not 31"):
            split(bytes(31), [1, 2], 2)
