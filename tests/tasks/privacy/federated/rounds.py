"""Branches that sum given numbers, for tests of the protocol alone."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.privacy.federated.branch_round import KEYS_BYTES, SIGNATURE_BYTES, BranchRound
from tasks.privacy.federated.masks import LETTER_BYTES, Occasion
from tasks.privacy.federated.records import cut, pack, unpack
from tasks.privacy.federated.roster import Roster
from tasks.privacy.federated.secure_sum import SecureSum

SESSION = bytes(range(32))


class Hall:
    """Identities, a roster, and rounds of branches that sum what they are given."""

    def __init__(self, count, threshold, colluding=0):
        names = [f"b{i:03d}" for i in range(count)]
        self.keys = [Ed25519PrivateKey.generate() for _ in names]
        public = [key.public_key().public_bytes_raw() for key in self.keys]
        self.roster = Roster(dict(zip(names, public, strict=True)), threshold, colluding)
        self.seen = []

    def rounds(self, number=0, session=SESSION):
        occasion = Occasion(session, number)
        return [BranchRound(self.roster, i, key, occasion) for i, key in enumerate(self.keys)]

    def sum(self, vectors, *, number=0, leaves=(), tampered=None, members=None):
        """Sum vectors; ``leaves`` holds (stage, place), ``tampered`` changes requests or answers.

        ``tampered(kind, place, stage, content)`` gets the kind ``"request"`` or ``"answer"``.
        """
        members = members or self.rounds(number)
        change = tampered or (lambda kind, place, stage, content: content)
        gone = set()

        def ask(requests):
            answers = {}
            for place, request in requests.items():
                if (request.stage, place) in leaves:
                    gone.add(place)
                if place in gone:
                    continue
                body = change("request", place, request.stage, request.body)
                answer = answered(members[place], request.stage, body, vectors[place], self.roster)
                answers[place] = change("answer", place, request.stage, answer)
                self.seen.append((request.stage, place, answers[place]))
            return answers

        width = len(vectors[0])
        places = range(len(members))
        return SecureSum(self.roster, Occasion(SESSION, number), ask).run("t", b"", width, places)


def answered(member, stage, body, vector, roster):
    count = len(roster.names)
    if stage == "keys":
        return member.keys()
    if stage == "letters":
        committed, letters = member.letters(unpack(body, KEYS_BYTES, count))
        return committed + pack(letters)
    if stage == "values":
        box, _ = cut(body)
        return member.values(unpack(box, LETTER_BYTES, count), np.asarray(vector)).tobytes()
    if stage == "confirm":
        return member.confirm(list(unpack(body, 0, count)))
    return pack(member.reveal(unpack(body, SIGNATURE_BYTES, count)))
