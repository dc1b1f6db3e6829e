"""Words that wrap: wire form, products, cut squares and signs, against exact whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ring64.products import product
from kernels.ring64.reference import negative_reference, product_reference, squares_reference
from kernels.ring64.signs import (
    MOST_BITS,
    deal_tables,
    first_look,
    second_look,
    table_words,
    third_look,
)
from kernels.ring64.squares import deal_squares, signed_squares, split_squares
from kernels.ring64.wire import packed, signed, unpacked

SEEDS = st.integers(0, 2**32 - 1)


def words(rng, *shape):
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


def signs_of(values, bits, seed):
    """Both parties' looks at the signs of residues, put together."""
    rng = np.random.default_rng(seed)
    n = len(values)
    share, mask, other_mask, index, other_index = (words(rng, n) for _ in range(5))
    tables = deal_tables(mask + other_mask, index ^ other_index, bits)
    mine = words(rng, *tables.shape)
    theirs = tables ^ mine
    opened = (share + mask) + (values - share + other_mask)
    indices = first_look(opened, mine, index, first=True, bits=bits)
    indices ^= first_look(opened, theirs, other_index, first=False, bits=bits)
    final = second_look(indices, mine, index, bits=bits)
    final ^= second_look(indices, theirs, other_index, bits=bits)
    one = third_look(final, opened, mine, first=True, bits=bits)
    return (one ^ third_look(final, opened, theirs, first=False, bits=bits)).astype(bool)


class TestWire:
    @settings(deadline=None)
    @given(SEEDS, st.integers(1, 8), st.integers(0, 40))
    def test_the_lowest_bytes_come_back(self, seed, width, n):
        sent = words(np.random.default_rng(seed), n, 3)
        content = packed(sent, width)
        assert content.size == sent.size * width
        kept = sent & np.uint64(2 ** (8 * width) - 1)
        np.testing.assert_array_equal(unpacked(content, width, sent.shape), kept)

    def test_another_length_is_refused(self):
        with pytest.raises(ValueError, match="4 words of 3 bytes are not 11 bytes"):
            unpacked(np.zeros(11, np.uint8), 3, (2, 2))
        with pytest.raises(ValueError, match="1 to 8 bytes, not 9"):
            packed(np.zeros(1, np.uint64), 9)

    @settings(deadline=None)
    @given(st.integers(2, 64), st.integers(-(2**63), 2**63 - 1))
    def test_residues_are_signed(self, bits, number):
        half = 1 << (bits - 1)
        number = (number + half) % (2 * half) - half
        word = np.array([number % 2**64], np.uint64)
        assert signed(word, bits).tolist() == [number]


class TestProduct:
    @settings(deadline=None)
    @given(SEEDS, st.integers(0, 5), st.integers(1, 4), st.integers(0, 6))
    def test_is_that_of_whole_numbers(self, seed, rows, units, columns):
        rng = np.random.default_rng(seed)
        a, b = words(rng, rows, columns), words(rng, units, columns)
        np.testing.assert_array_equal(product(a, b), product_reference(a, b))

    def test_shapes_must_fit(self):
        with pytest.raises(ValueError, match="do not fit"):
            product(np.zeros((2, 3), np.uint64), np.zeros((2, 4), np.uint64))


class TestSigns:
    @pytest.mark.parametrize("bits", [2, 3, 6, 7, 11])
    def test_every_value_of_a_small_ring(self, bits):
        values = np.tile(np.arange(2**bits, dtype=np.uint64), 5)
        expected = [negative_reference(int(value), bits) for value in values]
        assert signs_of(values, bits, seed=bits).tolist() == expected

    @settings(max_examples=60, deadline=None)
    @given(SEEDS, st.integers(2, MOST_BITS), st.lists(st.integers(-(2**60), 2**60), max_size=20))
    def test_any_value_of_any_ring(self, seed, bits, numbers):
        top = 1 << (bits - 1)
        edges = [0, 1, -1, top - 1, -top, 1 - top]
        values = np.array([number % 2**64 for number in edges + numbers], np.uint64)
        expected = [negative_reference(int(value), bits) for value in values]
        assert signs_of(values, bits, seed).tolist() == expected

    def test_rings_that_are_too_wide_are_refused(self):
        with pytest.raises(ValueError, match="2 to 61 bits, not 62"):
            table_words(62)


class TestSquares:
    @settings(max_examples=40, deadline=None)
    @given(SEEDS, st.integers(40, 64), st.data())
    def test_are_those_of_numbers_cut_to_within_one_step(self, seed, bits, data):
        """At any cut, at the ends of the range, whatever the mask; the sums wrap as whole ones."""
        cut = data.draw(st.integers(1, bits - 32))
        rng = np.random.default_rng(seed)
        end = 1 << (bits - 2)
        numbers = rng.integers(-end + 1, end, (12, 3))
        numbers[0], numbers[1] = end - 1, -end
        signs = np.array([1, -1, 1]).astype(np.int64).view(np.uint64)
        masks = words(rng, 12, 3)
        dealt = deal_squares(masks, signs, bits=bits, cut=cut)
        mine = words(rng, *dealt.shape)
        theirs = split_squares(dealt, mine)
        opened = numbers.view(np.uint64) + np.uint64(end) + masks
        total = signed_squares(opened, mine, signs, first=True, bits=bits, cut=cut)
        total += signed_squares(opened, theirs, signs, first=False, bits=bits, cut=cut)
        for row in range(12):
            exact = 0
            for number, mask, c, sign in zip(
                numbers[row].tolist(),
                masks[row].tolist(),
                opened[row].tolist(),
                (1, -1, 1),
                strict=True,
            ):
                borrow = c % 2**cut < mask % 2**cut
                number_cut = ((number + end) >> cut) + borrow - (end >> cut)
                assert abs(number_cut * 2**cut - number) <= 2**cut
                exact += sign * number_cut**2
            assert exact % 2**64 == int(total[row])

    def test_small_numbers_give_the_sum_of_squares(self):
        rng = np.random.default_rng(1)
        numbers = rng.integers(-(2**40), 2**40, (50, 4))
        signs = np.ones(4, np.uint64)
        masks = words(rng, 50, 4)
        dealt = deal_squares(masks, signs, bits=64, cut=20)
        mine = words(rng, *dealt.shape)
        opened = numbers.view(np.uint64) + np.uint64(1 << 62) + masks
        total = signed_squares(opened, mine, signs, first=True, bits=64, cut=20)
        total += signed_squares(
            opened, split_squares(dealt, mine), signs, first=False, bits=64, cut=20
        )
        for row, found in zip(numbers.tolist(), total.view(np.int64).tolist(), strict=True):
            exact = squares_reference(row, [1] * 4, 20)
            assert abs(found - exact) <= sum(2 * abs(number) / 2**20 + 1 for number in row)

    def test_cuts_that_lose_too_much_are_refused(self):
        with pytest.raises(ValueError, match="cannot be cut by 33"):
            deal_squares(np.zeros((1, 1), np.uint64), np.ones(1, np.uint64), bits=64, cut=33)
        with pytest.raises(ValueError, match="do not fit opened"):
            signed_squares(
                np.zeros((1, 2), np.uint64),
                np.zeros((1, 3), np.uint64),
                np.ones(2, np.uint64),
                first=True,
                bits=64,
                cut=20,
            )
