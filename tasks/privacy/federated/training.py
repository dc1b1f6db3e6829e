"""Federated training, the coordinator's side: from secure sums to a model."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.federated.accountant import epsilon_of, step_costs
from tasks.privacy.federated.branch import NONCE_BYTES, session_of
from tasks.privacy.federated.masks import Occasion
from tasks.privacy.federated.model import FederatedModel
from tasks.privacy.federated.moments import encoding_from
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.roster import Roster
from tasks.privacy.federated.secure_sum import Ask, SecureSum, Total

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round, for a person or a tracker.

    Attributes:
        round: From 1.
        loss: Mean log-loss of the rows of all branches before it; NaN in private rounds.
        rows: Rows behind it; 0 in private rounds, which do not tell.
        survivors: Names of the branches in the sum.
        left: Names of those that left in the middle.
        epsilon: Spent so far; infinite without noise.
        up: Largest number of bytes that a branch sent.
        down: Largest number of bytes that a branch was sent.
        seconds: Wall time.
    """

    round: int
    loss: float
    rows: int
    survivors: tuple[str, ...]
    left: tuple[str, ...]
    epsilon: float
    up: int
    down: int
    seconds: float

    def metrics(self) -> dict[str, float]:
        """Return the numbers of it."""
        return {
            "loss": self.loss,
            "rows": float(self.rows),
            "survivors": float(len(self.survivors)),
            "left": float(len(self.left)),
            "epsilon": self.epsilon,
            "up_bytes": float(self.up),
            "down_bytes": float(self.down),
            "seconds": self.seconds,
        }


class FederatedTraining:
    """Trains by the plan, round by round.

    Attributes:
        plan: What was agreed on.
        roster: With whom.
        parameters: float64 [d], after the last round.
        last: The last sum; None before it.
        session: Name of the training, 32 bytes.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        roster: Roster,
        ask: Ask,
        present: Callable[[], Collection[int]],
        nonce: bytes | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            plan: What was agreed on.
            roster: With whom.
            ask: Puts requests to branches.
            present: Tells which can be asked now.
            nonce: 32 bytes that name this training, as told to the branches; None: new ones.

        Raises:
            ValueError: When a sum could wrap around.
        """
        plan.require_room(roster)
        self.plan, self.roster = plan, roster
        self._ask, self._present = ask, present
        self.session = session_of(roster, plan, nonce or secrets.token_bytes(NONCE_BYTES))
        self.parameters = plan.network.initial(plan.seed)
        self.last: Total | None = None
        self._encoding = plan.scaling
        self._sums = 0
        self._rounds = 0
        private = plan.private
        self._costs = step_costs(private.rate, private.noise) if private else ()
        self._velocity = np.zeros_like(self.parameters)

    @property
    def model(self) -> FederatedModel:
        """The model after the last round.

        Raises:
            RuntimeError: When there was none.
        """
        if self._encoding is None:
            raise RuntimeError("there is no model before the first round")
        return FederatedModel(self._encoding, self.plan.network, self.parameters)

    @property
    def finished(self) -> bool:
        """Whether the plan has no more rounds."""
        return self._rounds >= self.plan.rounds

    def step(self) -> RoundReport:
        """Run one round, before the first also the sums for the scaling.

        Raises:
            TooFewBranchesError: When too few stayed; the model is as before. A round of the plan is
                used up: branches count what they have answered, summed in the end or not. When
                the sums for the scaling were given up after vectors were sent, the plan is used up.
            BudgetExhaustedError: When branches of this process have answered all that the plan has.
        """
        begun = time.perf_counter()
        if self._encoding is None:
            sums = self._summed("moments", b"").steps
            self._encoding = encoding_from(
                self.plan.columns, self.plan.quantiser("moments").values(sums)
            )
        self._rounds += 1
        loss, rows = self._private_step() if self.plan.private else self._average_step()
        total = self.last
        assert total is not None  # noqa: S101 - a sum has just been taken
        names = self.roster.names
        return RoundReport(
            round=self._rounds,
            loss=loss,
            rows=rows,
            survivors=tuple(names[place] for place in total.survivors),
            left=tuple(names[place] for place in total.left),
            epsilon=self._spent(),
            up=total.up,
            down=total.down,
            seconds=time.perf_counter() - begun,
        )

    def _average_step(self) -> tuple[float, int]:
        """Add the mean of the branches' updates, weighted by rows (McMahan et al. 2017)."""
        steps = self._summed("average", self._content()).steps
        rows = int(steps[-1])
        mean = self.plan.quantiser("average").values(steps[:-1]) / rows
        self.parameters = self.parameters + mean[:-1]
        return float(mean[-1]), rows

    def _private_step(self) -> tuple[float, int]:
        """Step against the noisy mean gradient, with momentum (of noisy sums only: it is free)."""
        private = self.plan.private
        assert private is not None  # noqa: S101 - asked before
        steps = self._summed("gradient", self._content()).steps
        mean = self.plan.quantiser("gradient").values(steps) / (private.rate * private.rows)
        progress = (self._rounds - 1) / self.plan.rounds
        rate = private.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        self._velocity = private.momentum * self._velocity + mean
        self.parameters = self.parameters - rate * self._velocity
        return math.nan, 0

    def _spent(self) -> float:
        """Return epsilon of a transaction after the rounds so far."""
        if self.plan.private is None:
            return math.inf
        return epsilon_of([self._rounds * cost for cost in self._costs], self.plan.private.delta)

    def _summed(self, task: str, content: bytes) -> Total:
        occasion = Occasion(self.session, self._sums)
        self._sums += 1
        one = SecureSum(self.roster, occasion, self._ask)
        self.last = one.run(task, content, self.plan.width(task), self._present())
        return self.last

    def _content(self) -> bytes:
        numbers: list[Any] = [self.parameters]
        if self.plan.scaling is None and self._encoding is not None:
            numbers += [self._encoding.mean, self._encoding.scale]
        content: bytes = np.concatenate(numbers).astype("<f8", copy=False).tobytes()
        return content
