"""What a branch computes from its rows for one sum: whole numbers, before any mask."""

from __future__ import annotations

import math
import secrets

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.privacy.federated.expander import KEY_BYTES, chosen, normal_steps
from tasks.privacy.federated.moments import encoding_of, moment_name, row_sums
from tasks.privacy.federated.network import Network
from tasks.privacy.federated.plan import LocalTraining, TrainingPlan
from tasks.privacy.federated.records import ProtocolError
from tasks.privacy.federated.roster import Roster

Reals = NDArray[np.float64]
Steps = NDArray[np.int64]


class BranchWork:
    """The rows of one branch, and the sums over them that the plan has.

    Attributes:
        plan: What was agreed on.
        name: Of the branch.
    """

    def __init__(
        self, plan: TrainingPlan, roster: Roster, name: str, x: ArrayLike, y: ArrayLike
    ) -> None:
        """Take the rows.

        Args:
            plan: What was agreed on.
            roster: With whom.
            name: Of this branch.
            x: [n, F] raw features, finite.
            y: [n] 1 fraud, 0 legitimate.

        Raises:
            ValueError: When rows do not fit the plan.
        """
        self.plan, self.name = plan, name
        self._x, self._y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        rows = len(self._x)
        if self._x.shape != (rows, len(plan.columns)) or self._y.shape != (rows,):
            raise ValueError(
                f"branch {name!r}: rows are [n, {len(plan.columns)}] with [n] labels, not"
                f" {list(self._x.shape)} with {list(self._y.shape)}"
            )
        if not 1 <= rows <= plan.most_rows:
            raise ValueError(f"branch {name!r}: {rows} rows; the plan has 1 to {plan.most_rows}")
        if not np.isfinite(self._x).all() or not np.isin(self._y, (0, 1)).all():
            raise ValueError(f"branch {name!r}: features must be finite, labels 0 or 1")
        plan.require_room(roster)
        self._noise = plan.noise_deviation(roster)
        self._encoded: tuple[bytes, Reals] | None = None

    def steps(self, task: str, round_number: int, content: bytes) -> Steps:
        """Return this branch's vector for a sum, int64 [plan.width(task)].

        Raises:
            ProtocolError: On a task that the plan does not have, or content of another length.
            RangeError: When a value is beyond what the sums cover.
        """
        if task not in self.plan.tasks:
            raise ProtocolError(f"the plan has tasks {list(self.plan.tasks)}, not {task!r}")
        numbers = np.frombuffer(content[: len(content) // 8 * 8], "<f8")
        if len(content) != 8 * self._content_width(task) or not np.isfinite(numbers).all():
            raise ProtocolError(f"task {task!r} came with {len(content)} bytes that do not fit it")
        made = {"moments": self._moments, "average": self._average, "gradient": self._gradient}
        return made[task](round_number, numbers)

    def _content_width(self, task: str) -> int:
        if task == "moments":
            return 0
        told = 0 if self.plan.scaling else 2 * len(self.plan.columns)
        return self.plan.network.parameters + told

    def _moments(self, round_number: int, numbers: Reals) -> Steps:
        del round_number, numbers
        quantiser = self.plan.quantiser("moments")
        return quantiser.steps(
            row_sums(self._x), self.name, lambda i: moment_name(self.plan.columns, i)
        )

    def _average(self, round_number: int, numbers: Reals) -> Steps:
        """Return rows times update in steps, rows times mean loss, rows."""
        network = self.plan.network
        start = numbers[: network.parameters]
        x = self._inputs(numbers[network.parameters :])
        rows = len(x)
        loss, _ = network.gradient(start, x, self._y)
        trained = train_locally(
            network, start, x, self._y, self.plan.local,
            seed=(self.plan.seed, round_number, *self.name.encode()),
            progress=min(round_number / self.plan.rounds, 1.0),
        )  # fmt: skip
        values = np.append(trained - start, loss / rows)
        steps = self.plan.quantiser("average").steps(values, self.name, self._update_name)
        return np.append(steps, 1) * rows

    def _update_name(self, place: int) -> str:
        network = self.plan.network
        return "mean loss" if place == network.parameters else f"change of {network.name(place)}"

    def _gradient(self, round_number: int, numbers: Reals) -> Steps:
        """Return the clipped gradients of drawn rows in steps, and this branch's share of noise."""
        del round_number
        private, network = self.plan.private, self.plan.network
        assert private is not None  # noqa: S101 - the plan has the task
        x = self._inputs(numbers[network.parameters :])
        rows = chosen(secrets.token_bytes(KEY_BYTES), len(x), private.rate)
        _, gradient = network.gradient(
            numbers[: network.parameters], x[rows], self._y[rows], clip=private.clip
        )
        quantiser = self.plan.quantiser("gradient")
        steps = quantiser.steps(gradient, self.name, lambda i: f"gradient of {network.name(i)}")
        noise = normal_steps(secrets.token_bytes(KEY_BYTES), len(steps), self._noise)
        return steps + noise

    def _inputs(self, told: Reals) -> Reals:
        """Return the encoded rows, kept as long as the encoding stays the same."""
        key = told.tobytes()
        if self._encoded is None or self._encoded[0] != key:
            width = len(self.plan.columns)
            scaling = self.plan.scaling
            if scaling is None:
                if not (told[width:] > 0).all():
                    raise ProtocolError("the scales that came with a task must be positive")
                scaling = encoding_of(self.plan.columns, told[:width], told[width:])
            self._encoded = (key, scaling.encode(self._x))
        return self._encoded[1]


def train_locally(
    network: Network,
    start: Reals,
    x: Reals,
    y: Reals,
    settings: LocalTraining,
    *,
    seed: tuple[int, ...],
    progress: float,
) -> Reals:
    """Return parameters after stochastic gradient steps with momentum.

    Args:
        network: What is trained.
        start: float64 [d].
        x: float64 [n, F].
        y: float64 [n].
        settings: Of the steps.
        seed: Of the order of rows.
        progress: Share of the training that is over, for the learning rate.
    """
    rng = np.random.default_rng(seed)
    decay = settings.decay + (1 - settings.decay) * 0.5 * (1 + math.cos(math.pi * progress))
    rate = settings.learning_rate * decay
    parameters, velocity = start.copy(), np.zeros_like(start)
    for _ in range(settings.epochs):
        order = rng.permutation(len(x))
        for first in range(0, len(x), settings.batch):
            rows = order[first : first + settings.batch]
            _, gradient = network.gradient(parameters, x[rows], y[rows])
            velocity = settings.momentum * velocity + gradient / len(rows)
            parameters -= rate * velocity
    return parameters
