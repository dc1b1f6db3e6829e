"""What a federated training does, to the last number: agreed on before it starts.

Coordinator and branches each hold a copy. A branch answers nothing that its own copy does not have
in it, so that no coordinator can ask for less noise, more rounds or another sum.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tasks.privacy.encoding import Encoding
from tasks.privacy.federated.accountant import epsilon
from tasks.privacy.federated.network import Network
from tasks.privacy.federated.quantise import MOST, Quantiser
from tasks.privacy.federated.roster import Roster

TAIL = 12.0
"""Deviations that a noise from `expander.normal_steps` never exceeds."""
LARGEST_LOG = 100.0
"""Signed logarithms of finite numbers that features hold: e**100 is beyond float32."""


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """What a branch does between two averages: plain stochastic gradient steps.

    Attributes:
        epochs: Passes over its rows.
        batch: Rows of a step.
        learning_rate: Of the first round.
        momentum: Within a round; it starts anew in each.
        decay: The learning rate of the last round, relative to the first; cosine between.
    """

    epochs: int = 1
    batch: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    decay: float = 0.05

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("local.epochs, local.batch and local.learning_rate must be positive")
        if not (0 <= self.momentum < 1 and 0 < self.decay <= 1):
            raise ValueError("local.momentum lies in [0, 1), local.decay in (0, 1]")


@dataclass(frozen=True, slots=True)
class Privacy:
    """Differential privacy of a transaction: one row more or less changes little of what is seen.

    Every round draws rows, clips the gradient of each, and sums them with noise. Each branch adds
    a share of the noise, so that no sum without it exists anywhere.

    Attributes:
        rows: Rows of all branches together, a public number: sizes the average.
        clip: Largest norm of one row's gradient.
        noise: Deviation of the noise in a sum, relative to ``clip``.
        rate: Probability with which a row is drawn in a round.
        delta: Probability with which epsilon may be exceeded; below 1 / rows.
        learning_rate: Of the coordinator's first step; falls to nothing by a cosine.
        momentum: Of the coordinator's steps.
    """

    rows: int
    clip: float = 1.0
    noise: float = 1.0
    rate: float = 0.02
    delta: float = 1e-6
    learning_rate: float = 0.3
    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.rows < 1 or not (self.clip > 0 and self.noise > 0 and self.learning_rate > 0):
            raise ValueError("private.rows, clip, noise and learning_rate must be positive")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"private.momentum lies in [0, 1), not {self.momentum}")
        if not 0 < self.rate <= 1:
            raise ValueError(f"private.rate lies within (0, 1], not {self.rate}")
        if not 0 < self.delta < 1 / self.rows:
            raise ValueError(f"private.delta lies below 1 / rows = {1 / self.rows:.1e}")


@dataclass(frozen=True)
class TrainingPlan:
    """A whole training.

    Attributes:
        columns: Names of the F features.
        hidden: Widths of the hidden layers; none: logistic regression.
        rounds: Sums of updates or gradients.
        seed: Of the first parameters and of the order of rows.
        most_rows: Rows that a branch may have at most.
        limit: Largest change of a parameter by local training; beyond it a branch refuses.
        bits: Binary digits behind the point in sums.
        local: Local training, unless private.
        private: None: sums are secure, but exact.
        scaling: Encoding of the features from public data; None: from secure sums over the rows of
            the branches, which are exact, so not with ``private``.
    """

    columns: tuple[str, ...]
    hidden: tuple[int, ...] = (32,)
    rounds: int = 30
    seed: int = 0
    most_rows: int = 1 << 24
    limit: float = 64.0
    bits: int = 24
    local: LocalTraining = field(default_factory=LocalTraining)
    private: Privacy | None = None
    scaling: Encoding | None = None

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.rounds < 1 or self.most_rows < 1 or self.seed < 0:
            raise ValueError("plan.rounds and plan.most_rows are at least 1, plan.seed at least 0")
        if self.scaling is not None and self.scaling.columns != self.columns:
            raise ValueError("plan.scaling is of other columns than the plan")
        if self.private is not None and self.scaling is None:
            raise ValueError(
                "a private plan needs plan.scaling from public rows: means and deviations of the"
                " branches' rows would be exact sums, which differential privacy does not cover"
            )

    @property
    def network(self) -> Network:
        """The network that is trained."""
        inputs = len(self.columns) if self.scaling is None else self.scaling.inputs
        return Network(inputs, self.hidden)

    @property
    def epsilon(self) -> float:
        """Epsilon of a transaction after all rounds; infinite without noise."""
        if self.private is None:
            return math.inf
        return epsilon(self.private.rate, self.private.noise, self.rounds, self.private.delta)

    def width(self, task: str) -> int:
        """Return the length of the vector that a task sums."""
        return {
            "moments": 2 * len(self.columns) + 1,
            "average": self.network.parameters + 2,
            "gradient": self.network.parameters,
        }[task]

    @property
    def tasks(self) -> dict[str, int]:
        """Tasks that branches answer -> how often at most."""
        if self.private is not None:
            return {"gradient": self.rounds}
        # Moments are exact and of the same rows each time: two sums would tell one branch's apart.
        told = {} if self.scaling else {"moments": 1}
        return told | {"average": self.rounds}

    def quantiser(self, task: str) -> Quantiser:
        """Return the quantiser of a task's values."""
        limit = {
            "moments": LARGEST_LOG**2 * self.most_rows,
            "average": self.limit,
            "gradient": self.most_rows * (self.private.clip if self.private else 1.0),
        }[task]
        return Quantiser(limit, self.bits if task != "moments" else min(self.bits, 16))

    def noise_deviation(self, roster: Roster) -> float:
        """Return the deviation of one branch's share of the noise, in steps.

        Rounding lets a row change each of the d entries by one step more than its gradient does:
        the noise covers that, too.
        """
        if self.private is None:
            return 0.0
        sensitivity = self.private.clip * 2.0**self.bits + math.sqrt(self.network.parameters)
        return self.private.noise * sensitivity / math.sqrt(roster.honest)

    def require_room(self, roster: Roster) -> None:
        """Check that no sum over all branches can wrap around.

        Raises:
            ValueError: When one could.
        """
        branches = len(roster.names)
        for task in self.tasks:
            weight = self.most_rows if task == "average" else 1
            self.quantiser(task).require_room(weight * branches, f"plan, task {task!r}")
        noise = math.ceil(TAIL * self.noise_deviation(roster))
        if branches * (noise + self.quantiser("gradient").largest) > MOST:
            raise ValueError("plan: gradients and noise do not fit 64 bits; take fewer bits")

    @classmethod
    def from_settings(
        cls,
        columns: tuple[str, ...],
        settings: Mapping[str, Any],
        *,
        rows: int,
        scaling: Encoding | None = None,
    ) -> TrainingPlan:
        """Return the plan that settings as a person writes them come to.

        Args:
            columns: Names of the features.
            settings: Fields of the plan; ``local`` and ``private`` are mappings of theirs.
            rows: Rows of all branches, for ``private.rows`` unless it is given.
            scaling: Encoding from public rows.

        Raises:
            ValueError: On a field that there is not, or a value that does not fit.
        """
        chosen = dict(settings)
        local, private = chosen.pop("local", None) or {}, chosen.pop("private", None)
        if "hidden" in chosen:
            chosen["hidden"] = tuple(chosen["hidden"])
        try:
            return cls(
                columns=columns,
                local=LocalTraining(**local),
                private=None if private is None else Privacy(**({"rows": rows} | private)),
                scaling=scaling,
                **chosen,
            )
        except TypeError as error:
            raise ValueError(f"settings of the training: {error}") from error

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).digest()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return asdict(self) | {"scaling": self.scaling and self.scaling.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingPlan:
        """Rebuild from `to_dict`."""
        private, scaling = data["private"], data["scaling"]
        return cls(
            **dict(data)
            | {
                "columns": tuple(data["columns"]),
                "hidden": tuple(data["hidden"]),
                "local": LocalTraining(**data["local"]),
                "private": Privacy(**private) if private else None,
                "scaling": Encoding.from_dict(scaling) if scaling else None,
            }
        )
