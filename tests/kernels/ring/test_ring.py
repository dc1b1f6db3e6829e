"""Ring arithmetic equals whole numbers of any size, and Microsoft SEAL."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ring.packing import WordError, pack
from kernels.ring.packing import unpack as unpack_reference
from kernels.ring.powers import add_constants, power_sum, times_element
from kernels.ring.reference import (
    negacyclic_product,
    power_sum_reference,
    weighted_sums_reference,
)
from kernels.ring.ring import Ring
from kernels.ring.roots import least_root, values
from kernels.ring.weighted import weighted_sums
from kernels.ring.words import unpack

RINGS = {
    "54 bits": Ring(256, (18014398509309953,)),
    "60 bits, twice": Ring(256, (1152921504606748673, 1152921504606830593)),
    "small": Ring(256, (7681, 12289)),
}
rings = pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)


def drawn(ring: Ring, n: int, seed: int = 0) -> np.ndarray:
    """Words, the largest and smallest of each prime among them."""
    rng = np.random.default_rng(seed)
    words = np.stack(
        [rng.integers(0, prime, (n, ring.degree), dtype=np.uint64) for prime in ring.primes], axis=1
    )
    words[:, :, :4] = 0
    for k, prime in enumerate(ring.primes):
        words[:, k, 4:8] = prime - 1
    return words


class TestRing:
    def test_refuses_what_arithmetic_could_not_bear(self):
        with pytest.raises(ValueError, match="power of two"):
            Ring(12, (13,))
        with pytest.raises(ValueError, match="distinct"):
            Ring(2, (13, 13))
        with pytest.raises(ValueError, match="does not fit"):
            Ring(256, (7680,))
        with pytest.raises(ValueError, match="does not fit"):
            Ring(2, ((1 << 61) + 1,))
        with pytest.raises(ValueError, match="not prime"):
            Ring(2, (21,))

    def test_bytes_of_words(self):
        assert RINGS["54 bits"].poly_bytes == 256 * 7
        assert RINGS["60 bits, twice"].poly_bytes == 256 * 16
        assert RINGS["small"].word_bytes == (2, 2)


class TestWords:
    @rings
    def test_come_back_from_bytes(self, ring):
        words = drawn(ring, 3)
        packed = pack(words, ring)
        assert packed.shape == (3, ring.poly_bytes)
        np.testing.assert_array_equal(unpack(packed, ring), words)
        np.testing.assert_array_equal(unpack_reference(packed, ring), words)

    @rings
    @pytest.mark.parametrize("read", [unpack, unpack_reference])
    def test_a_word_that_is_no_remainder_is_refused(self, ring, read):
        words = drawn(ring, 2)
        for k, prime in enumerate(ring.primes):
            wrong = words.copy()
            wrong[1, k, 100] = prime
            with pytest.raises(WordError, match=f"1 words are not below prime {k}"):
                read(pack(wrong, ring), ring)

    @pytest.mark.parametrize("read", [unpack, unpack_reference])
    def test_other_lengths_are_refused(self, read):
        ring = RINGS["small"]
        with pytest.raises(WordError, match="1024 bytes each"):
            read(np.zeros((1, ring.poly_bytes - 1), np.uint8), ring)
        with pytest.raises(WordError, match="bytes each"):
            read(np.zeros(ring.poly_bytes, np.uint8), ring)


class TestWeightedSums:
    @rings
    @pytest.mark.parametrize("inputs", [1, 2, 31])
    @pytest.mark.parametrize("largest", [1, 2**12, 2**25, 2**31 - 1])
    def test_equal_whole_numbers(self, ring, inputs, largest):
        words = drawn(ring, inputs, seed=inputs)
        rng = np.random.default_rng(largest)
        weights = rng.integers(-largest, largest, (3, inputs), endpoint=True).astype(np.int32)
        weights[0] = largest  # the largest sums that can be
        weights[1, ::2] = 0
        np.testing.assert_array_equal(
            weighted_sums(words, weights, ring), weighted_sums_reference(words, weights, ring)
        )

    def test_the_most_negative_weight(self):
        ring = RINGS["60 bits, twice"]
        words = drawn(ring, 5)
        weights = np.full((1, 5), -(2**31), np.int32)
        np.testing.assert_array_equal(
            weighted_sums(words, weights, ring), weighted_sums_reference(words, weights, ring)
        )

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9), st.integers(0, 999))
    def test_hold_for_any_weights(self, weights, seed):
        ring = RINGS["small"]
        words = drawn(ring, len(weights), seed)
        matrix = np.array([weights], np.int32)
        np.testing.assert_array_equal(
            weighted_sums(words, matrix, ring), weighted_sums_reference(words, matrix, ring)
        )

    def test_shapes_and_types_are_checked(self):
        ring = RINGS["small"]
        words = drawn(ring, 2)
        with pytest.raises(ValueError, match="int32"):
            weighted_sums(words, np.ones((1, 2)), ring)
        with pytest.raises(ValueError, match=r"\[outputs, 2\]"):
            weighted_sums(words, np.ones((1, 3), np.int32), ring)
        with pytest.raises(ValueError, match="do not fit"):
            weighted_sums(words[:, :1], np.ones((1, 2), np.int32), ring)


class TestPowers:
    @rings
    @pytest.mark.parametrize("power", [2, 3])
    def test_equal_whole_numbers(self, ring, power):
        words = drawn(ring, 8).reshape(4, 2, len(ring.primes), ring.degree)
        signs = np.array([1, -1, -1, 1], np.int8)
        np.testing.assert_array_equal(
            power_sum(words, signs, power, ring), power_sum_reference(words, signs, power, ring)
        )

    def test_other_powers_and_shapes_are_refused(self):
        ring = RINGS["small"]
        words = drawn(ring, 2)[None]
        with pytest.raises(ValueError, match="power 4"):
            power_sum(words, np.ones(1, np.int8), 4, ring)
        with pytest.raises(ValueError, match="do not fit"):
            power_sum(words, np.ones(2, np.int8), 2, ring)

    @rings
    def test_constants_of_any_size_are_added(self, ring):
        words = drawn(ring, 4).reshape(2, 2, len(ring.primes), ring.degree)
        numbers = [-(2**200) - 5, 2**90]
        changed = words.copy()
        add_constants(changed, numbers, ring)
        np.testing.assert_array_equal(changed[:, 1], words[:, 1])
        for h, number in enumerate(numbers):
            for k, prime in enumerate(ring.primes):
                expected = (words[h, 0, k].astype(object) + number) % prime
                np.testing.assert_array_equal(changed[h, 0, k].astype(object), expected)


class TestRoots:
    def test_the_root_is_primitive_and_the_least(self):
        prime, degree = 7681, 256
        root = least_root(degree, prime)
        assert pow(root, degree, prime) == prime - 1
        others = {pow(root, odd, prime) for odd in range(1, 2 * degree, 2)}
        assert root == min(others)

    @rings
    def test_values_are_those_at_the_roots(self, ring):
        coefficients = np.random.default_rng(0).integers(-(2**40), 2**40, ring.degree)
        found = values(coefficients, ring)
        bits = ring.degree.bit_length() - 1
        for k, prime in enumerate(ring.primes):
            for place in (0, 1, ring.degree // 2, ring.degree - 1):
                odd = 2 * int(f"{place:0{bits}b}"[::-1], 2) + 1
                at = pow(least_root(ring.degree, prime), odd, prime)
                wanted = 0
                for coefficient in coefficients.tolist()[::-1]:
                    wanted = (wanted * at + coefficient) % prime
                assert found[k, place] == wanted

    def test_products_of_values_are_values_of_products(self):
        ring = Ring(256, (7681,))
        rng = np.random.default_rng(1)
        a, b = rng.integers(-50, 50, (2, ring.degree)).tolist()
        product = negacyclic_product(a, b, ring.primes[0])
        as_values = [values(np.array(one), ring) for one in (a, b, product)]
        np.testing.assert_array_equal(
            times_element(as_values[0][None], as_values[1], ring)[0], as_values[2]
        )
