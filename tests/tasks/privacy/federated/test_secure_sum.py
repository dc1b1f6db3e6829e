"""Sums are exact whoever leaves, and what is wrong ends them without telling anything."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.federated.branch_round import STAGES
from tasks.privacy.federated.masks import Occasion
from tasks.privacy.federated.records import ProtocolError, cut, join, pack, unpack
from tasks.privacy.federated.roster import Roster
from tasks.privacy.federated.secure_sum import ShareMismatchError, TooFewBranchesError
from tests.tasks.privacy.federated.rounds import SESSION, Hall

SUMMED = ("confirm", "reveal")
"""Who leaves at these has given its vector."""


def vectors(count, width=5, seed=0):
    edge = (1 << 62) // count
    return list(np.random.default_rng(seed).integers(-edge, edge, (count, width)))


class TestSums:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(3, 9), st.integers(0, 1_000), st.data())
    def test_equal_the_plain_sum_whoever_leaves_when(self, count, seed, data):
        threshold = data.draw(st.integers(count // 2 + 1, count))
        leaving = data.draw(
            st.dictionaries(
                st.integers(0, count - 1), st.sampled_from(STAGES), max_size=count - threshold
            )
        )
        each = vectors(count, 7, seed)
        total = Hall(count, threshold).sum(each, leaves=[(s, p) for p, s in leaving.items()])
        stay = [p for p in range(count) if leaving.get(p, "confirm") in SUMMED]
        np.testing.assert_array_equal(total.steps, np.sum([each[p] for p in stay], axis=0))
        assert total.survivors == tuple(stay)
        assert total.left == tuple(sorted(p for p, s in leaving.items() if s == "values"))

    def test_three_of_ten_may_leave_at_once(self):
        each = vectors(10)
        total = Hall(10, 7).sum(each, leaves=[("values", place) for place in (2, 5, 9)])
        stay = [0, 1, 3, 4, 6, 7, 8]
        np.testing.assert_array_equal(total.steps, np.sum([each[p] for p in stay], axis=0))
        assert total.left == (2, 5, 9)

    @pytest.mark.parametrize("stage", STAGES)
    def test_below_the_threshold_nothing_is_told(self, stage):
        hall = Hall(5, 4)
        with pytest.raises(TooFewBranchesError, match=f"given up at '{stage}': 3 of 5"):
            hall.sum(vectors(5), leaves=[(stage, 0), (stage, 3)])
        if stage != "reveal":
            assert "reveal" not in [seen for seen, _, _ in hall.seen]

    def test_bytes_are_counted(self):
        hall = Hall(4, 3)
        total = hall.sum(vectors(4, width=100))
        assert total.up == sum(len(body) for _, place, body in hall.seen if place == 0)
        assert total.up > 800


class TestMasks:
    def test_hide_what_is_summed(self):
        """Zeros under masks are fair coins, and no two rounds or branches share any."""
        hall = Hall(3, 2)
        sent = []
        for number in range(2):
            hall.sum([np.zeros(4_000, np.int64)] * 3, number=number)
            sent += [body for stage, _, body in hall.seen if stage == "values"]
        words = np.array([np.frombuffer(body, np.uint64) for body in sent[:3] + sent[-3:]])
        ones = np.unpackbits(words.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(words.size * 64)
        assert len(np.unique(words)) == words.size

    def test_depend_on_round_session_purpose_and_pair(self):
        made = {
            Occasion(session, number).info(purpose, *pair)
            for session in (SESSION, bytes(32))
            for number in (0, 1, 1 << 40)
            for purpose in (b"mask", b"letter")
            for pair in itertools.permutations(range(3), 2)
        }
        assert len(made) == 2 * 3 * 2 * 6

    def test_a_branch_opens_the_seed_or_the_key_of_another_never_both(self):
        hall = Hall(5, 3)
        hall.sum(vectors(5), leaves=[("values", 1)])
        seen = {place: unpack(body, 33, 5) for stage, place, body in hall.seen if stage == "reveal"}
        assert set(seen) == {0, 2, 3, 4}
        assert all(set(shares) == {0, 1, 2, 3, 4} for shares in seen.values())


class TestAttacks:
    def test_survivors_told_differently_to_two_halves_are_noticed(self):
        """The coordinator wants seeds of a branch from some and its key from others."""
        hall = Hall(5, 3)

        def lie(kind, place, stage, content):
            if (kind, stage) == ("request", "confirm") and place > 2:
                return pack(dict.fromkeys([1, 2, 3, 4], b""))
            return content

        with pytest.raises(ProtocolError, match="'b003' did not sign this"):
            hall.sum(vectors(5), tampered=lie)

    def test_a_branch_notices_it_as_well(self):
        hall = Hall(5, 3)
        members = hall.rounds()
        _until(hall, members, "confirm")
        signatures = {p: m.confirm([0, 1, 2, 3, 4]) for p, m in enumerate(members[:3])}
        signatures |= {p: members[p].confirm([1, 2, 3, 4]) for p in (3, 4)}
        with pytest.raises(ProtocolError, match="'b003' did not sign this"):
            members[0].reveal(signatures)

    def test_a_branch_of_the_coordinators_own_is_noticed(self):
        hall, other = Hall(4, 3), Hall(4, 3)
        keys = {place: member.keys() for place, member in enumerate(hall.rounds())}
        keys[2] = other.rounds()[2].keys()
        member = hall.rounds()[0]
        keys[0] = member.keys()
        with pytest.raises(ProtocolError, match="'b002' did not sign"):
            member.letters(keys)

    def test_keys_of_another_round_are_noticed(self):
        hall = Hall(3, 2)
        old = {place: member.keys() for place, member in enumerate(hall.rounds(number=0))}
        member = hall.rounds(number=1)[0]
        with pytest.raises(ProtocolError, match="did not sign"):
            member.letters(old | {0: member.keys()})

    def test_a_letter_changed_or_swapped_is_noticed(self):
        hall = Hall(4, 3)

        def swap(kind, place, stage, content):
            if (kind, place, stage) == ("request", 0, "values"):
                box, rest = cut(content)
                letters = unpack(box, 82, 4)
                letters[1], letters[2] = letters[2], letters[1]
                return join(pack(letters), rest)
            return content

        with pytest.raises(ProtocolError, match="branch 'b001': the letter"):
            hall.sum(vectors(4), tampered=swap)

    @pytest.mark.parametrize("of", ["seed", "mask key"])
    @pytest.mark.parametrize("spare", [True, False])
    def test_a_wrong_share_never_gives_a_wrong_sum(self, of, spare):
        def change(kind, place, stage, content):
            if (kind, place, stage) != ("answer", 1, "reveal"):
                return content
            shares = unpack(content, 33, 5)
            shares[3] = (int.from_bytes(shares[3], "big") ^ 2).to_bytes(33, "big")
            return pack(shares)

        leaves = [("values", 3)] if of == "mask key" else []
        if not spare:
            leaves += [("reveal", 2)] if leaves else [("reveal", 2), ("reveal", 4)]
        with pytest.raises(ShareMismatchError, match="'b003'"):
            Hall(5, 3).sum(vectors(5), tampered=change, leaves=leaves)

    def test_a_degenerate_key_is_refused_with_its_branch(self):
        hall = Hall(3, 2)
        member = hall.rounds()[0]
        public = bytes(64)
        from tasks.privacy.federated.branch_round import keys_text

        signature = hall.keys[1].sign(keys_text(Occasion(SESSION, 0), 1, public))
        with pytest.raises(ProtocolError, match="'b001' sent a degenerate key"):
            member.letters({0: member.keys(), 1: public + signature})

    def test_stages_come_once_and_in_order(self):
        hall = Hall(3, 2)
        members = hall.rounds()
        with pytest.raises(ProtocolError, match="'values' was asked for out of order"):
            members[0].values({}, np.zeros(1, np.int64))
        members[1].keys()
        with pytest.raises(ProtocolError, match="'keys' was asked for out of order, or again"):
            members[1].keys()
        hall.sum(vectors(3), members=(fresh := hall.rounds()))
        with pytest.raises(ProtocolError, match="'reveal' was asked for out of order"):
            fresh[0].reveal({})

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_garbled_answer_is_no_answer(self, stage):
        def cut_off(kind, place, at, content):
            return content[:-1] if (kind, place, at) == ("answer", 1, stage) else content

        with pytest.raises(ProtocolError, match=r"b001|pieces"):
            Hall(3, 3).sum(vectors(3), tampered=cut_off)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 40))
    def test_any_bytes_are_pieces_or_refused(self, content, size):
        try:
            found = unpack(content, size, 50)
        except ProtocolError:
            return
        assert pack(found) == content


class TestRoster:
    @pytest.mark.parametrize(
        ("count", "threshold", "colluding", "said"),
        [
            (2, 2, 0, "a sum hides its parts from 3"),
            (4, 2, 0, "between 3 and 4"),
            (10, 7, 4, "between 8 and 10"),
            (3, 4, 0, "between 2 and 3"),
            (5, 3, -1, "threshold 3"),
        ],
    )
    def test_numbers_that_protect_nobody_are_refused(self, count, threshold, colluding, said):
        with pytest.raises(ValueError, match=said):
            Hall(count, threshold, colluding)

    def test_names_and_keys_are_checked(self):
        roster = Hall(3, 2).roster
        keys = list(roster.identities.values())
        with pytest.raises(ValueError, match="two branches have one identity"):
            Roster({"a": keys[0], "b": keys[0], "c": keys[1]}, 2)
        with pytest.raises(ValueError, match="1 to 64 characters"):
            Roster({"": keys[0], "b": keys[1], "c": keys[2]}, 2)
        with pytest.raises(ValueError, match="32 bytes"):
            Roster({"a": b"", "b": keys[1], "c": keys[2]}, 2)

    def test_comes_back_from_json_and_its_digest_tells_all_apart(self):
        roster = Hall(4, 3).roster
        assert Roster.from_dict(roster.to_dict()) == roster
        others = [dataclasses.replace(roster, threshold=4), Hall(4, 3).roster]
        assert roster.digest not in {other.digest for other in others}


def _until(hall, members, stage):
    """Bring members to the message before a stage, by a sum that ends there."""

    def stop(kind, place, at, content):
        if (kind, at) == ("request", stage):
            raise StopIteration
        return content

    with pytest.raises(StopIteration):
        hall.sum(vectors(len(members)), members=members, tampered=stop)
