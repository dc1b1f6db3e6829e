"""Scores rows with both parties in one process: what a session would give, without a network.

To simulate a model before any dealing, and to have all compiled code at hand before a session
counts time.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.shares.dealing import deal_batch
from tasks.privacy.shares.linear import open_weights
from tasks.privacy.shares.material import SEED_BYTES, Material
from tasks.privacy.shares.part import Part
from tasks.privacy.shares.plan import JointPlan
from tasks.privacy.shares.scoring import BatchScorer, Outcome
from tasks.privacy.shares.steps import together

Reals = NDArray[np.float64]


def rehearse(
    plan: JointPlan, parts: tuple[Part, Part], inputs: tuple[Reals, Reals]
) -> tuple[Outcome, Outcome]:
    """Return what either party would receive for encoded inputs [n, G of the party]."""
    seeds = secrets.token_bytes(SEED_BYTES), secrets.token_bytes(SEED_BYTES)
    given = deal_batch(plan, seeds, 0, len(inputs[0]))
    layers = together(
        open_weights(plan, 0, parts[0], seeds[0]), open_weights(plan, 1, parts[1], seeds[1])
    )
    first, second = (
        BatchScorer(plan, 0, parts[0], layers[0]),
        BatchScorer(plan, 1, parts[1], layers[1]),
    )
    return together(
        first.score(inputs[0], Material(seeds[0], 0, given[0])),
        second.score(inputs[1], Material(seeds[1], 0, given[1])),
    )


def load_kernels(plan: JointPlan) -> None:
    """Compile, or load from the cache, what sessions of a plan run."""
    units, scores = plan.units, plan.scores if plan.signs else 0
    empty = Part(
        np.zeros((units, sum(plan.inputs)), np.uint64),
        np.zeros(units, np.uint64),
        np.zeros(scores, np.uint64),
    )
    rehearse(plan, (empty, empty), (np.zeros((1, plan.inputs[0])), np.zeros((1, plan.inputs[1]))))
