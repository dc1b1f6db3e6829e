"""A branch as the coordinator meets it: requests in, answers out, each sum answered once."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.privacy.federated.branch_round import KEYS_BYTES, SIGNATURE_BYTES, BranchRound
from tasks.privacy.federated.branch_work import BranchWork
from tasks.privacy.federated.masks import LETTER_BYTES, Occasion
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.records import ProtocolError, Request, cut, pack, unpack
from tasks.privacy.federated.roster import Roster

NONCE_BYTES = 32


class BudgetExhaustedError(ProtocolError):
    """A sum was asked for that the plan has no more of: the branch answered all, and refuses."""


class Spending(Protocol):
    """Counts the vectors that left for one plan."""

    def spent(self, task: str) -> int:
        """Return how many have left for a task."""
        ...

    def spend(self, task: str) -> None:
        """Count one that leaves now."""
        ...


class Spent:
    """Counts in memory."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def spent(self, task: str) -> int:
        """Return how many have left for a task."""
        return self._counts[task]

    def spend(self, task: str) -> None:
        """Count one that leaves now."""
        self._counts[task] += 1


def session_of(roster: Roster, plan: TrainingPlan, nonce: bytes) -> bytes:
    """Return the name of a training: of its branches, its plan and the coordinator's nonce."""
    return hashlib.sha256(b"penstock/session/" + roster.digest + plan.digest + nonce).digest()


class Branch:
    """Answers a coordinator. An object serves one session and one thread.

    Attributes:
        roster: Who takes part.
        work: The rows, and what may be summed of them.
    """

    def __init__(
        self,
        roster: Roster,
        work: BranchWork,
        identity: Ed25519PrivateKey,
        session: bytes,
        spending: Spending | None = None,
    ) -> None:
        """Join a session.

        Args:
            roster: Who takes part.
            work: The rows.
            identity: Key of this branch in the roster.
            session: Name of the training.
            spending: Counts what leaves; None: in memory.

        Raises:
            ValueError: When the identity is not that of the roster.
        """
        known = roster.identities.get(work.name)
        if known != identity.public_key().public_bytes_raw():
            raise ValueError(f"the identity of branch {work.name!r} is none of the roster")
        self.roster, self.work = roster, work
        self._identity, self._session = identity, session
        self._me = roster.names.index(work.name)
        self._last = -1
        self._spending = spending or Spent()
        self._task = ""
        self._round: BranchRound | None = None

    def answer(self, request: Request) -> bytes:
        """Return the answer to one request.

        Raises:
            ProtocolError: When it is not in its place, or a stage or task that there is not.
            BudgetExhaustedError: When the plan has no more sums of the task.
            RangeError: When a value is beyond what sums cover.
        """
        current = self._begun(request) if request.stage == "keys" else self._round
        if current is None or (request.round, request.task) != (self._last, self._task):
            raise ProtocolError(
                f"{request.stage!r} of sum {request.round} ({request.task}) was asked for,"
                f" but sum {self._last} is the last begun"
            )
        try:
            return self._stage(current, request)
        except ProtocolError:
            self._round = None  # what went wrong once is not tried again
            raise

    def _begun(self, request: Request) -> BranchRound:
        """Begin a sum, if the plan still has one."""
        tasks = self.work.plan.tasks
        if request.task not in tasks:
            raise ProtocolError(f"the plan has tasks {list(tasks)}, not {request.task!r}")
        if request.round <= self._last:
            raise ProtocolError(f"sum {request.round} comes again: no mask serves twice")
        self._last, self._task = request.round, request.task
        occasion = Occasion(self._session, request.round)
        self._round = BranchRound(self.roster, self._me, self._identity, occasion)
        return self._round

    def _stage(self, current: BranchRound, request: Request) -> bytes:
        branches = len(self.roster.names)
        match request.stage:
            case "keys":
                return current.keys()
            case "letters":
                committed, letters = current.letters(unpack(request.body, KEYS_BYTES, branches))
                return committed + pack(letters)
            case "values":
                box, content = cut(request.body)
                self._spend(request.task)
                steps = self.work.steps(request.task, request.round, content)
                letters = unpack(box, LETTER_BYTES, branches)
                return current.values(letters, steps).astype("<u8", copy=False).tobytes()
            case "confirm":
                return current.confirm(list(unpack(request.body, 0, branches)))
            case "reveal":
                return pack(current.reveal(unpack(request.body, SIGNATURE_BYTES, branches)))
            case _:
                raise ProtocolError(f"there is no stage {request.stage!r}")

    def _spend(self, task: str) -> None:
        """Keep within the plan: every vector that leaves is paid for, summed in the end or not."""
        most = self.work.plan.tasks[task]
        if self._spending.spent(task) >= most:
            mend = "agree on another plan (with another seed)"
            if task == "moments":
                mend = "take the scaling from public rows: these rows' moments are told once"
            raise BudgetExhaustedError(
                f"the plan has {most} sums of task {task!r}, all answered; to go on, {mend}"
            )
        self._spending.spend(task)
