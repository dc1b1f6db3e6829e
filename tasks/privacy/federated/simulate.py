"""A whole training in one process: the same messages, byte by byte, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import ArrayLike

from tasks.privacy.federated.branch import NONCE_BYTES, Branch, session_of
from tasks.privacy.federated.branch_work import BranchWork
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.records import Request
from tasks.privacy.federated.roster import Roster
from tasks.privacy.federated.training import FederatedTraining

Leaves = Callable[[str, int, int], bool]
"""Stage, number of the sum, place: whether the branch fails to answer."""


def nobody_leaves(stage: str, sum_number: int, place: int) -> bool:
    """Have all branches answer everything."""
    del stage, sum_number, place
    return False


@dataclass(frozen=True, slots=True)
class Simulation:
    """Branches in this process.

    Attributes:
        training: The coordinator's side.
        branches: The others, by place.
    """

    training: FederatedTraining
    branches: list[Branch]


def simulation(
    plan: TrainingPlan,
    parts: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    threshold: int,
    colluding: int = 0,
    leaves: Leaves = nobody_leaves,
) -> Simulation:
    """Return a training over parts of the rows, ready for its first step.

    Args:
        plan: What to do.
        parts: Features [n, F] and labels [n] of each branch.
        threshold: Branches that must stay.
        colluding: Branches that may side with the coordinator.
        leaves: Which branch fails to answer what.
    """
    names = [f"branch-{i:03d}" for i in range(len(parts))]
    keys = [Ed25519PrivateKey.generate() for _ in parts]
    public = [key.public_key().public_bytes_raw() for key in keys]
    roster = Roster(dict(zip(names, public, strict=True)), threshold, colluding)
    nonce = bytes(NONCE_BYTES)
    session = session_of(roster, plan, nonce)
    branches = [
        Branch(roster, BranchWork(plan, roster, name, x, y), key, session)
        for name, key, (x, y) in zip(names, keys, parts, strict=True)
    ]

    def ask(requests: Mapping[int, Request]) -> dict[int, bytes]:
        return {
            place: branches[place].answer(request)
            for place, request in requests.items()
            if not leaves(request.stage, request.round, place)
        }

    training = FederatedTraining(plan, roster, ask, lambda: range(len(parts)), nonce)
    return Simulation(training, branches)
