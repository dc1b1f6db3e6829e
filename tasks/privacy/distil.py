"""Distils any scorer of tables into a network that can be scored encrypted.

Trees cut columns at thresholds; a polynomial of the columns cannot follow a cut, but a polynomial
of *steps* can, and where a value lies against a public threshold is for its owner to say. So: find
the thresholds that matter by growing a few small trees on the teacher's scores, take the steps at
them beside the standardised columns as inputs, and fit a linear part and squared units.

Scores below the teacher's floor tie in the target: their order is chance, and following it would
cost the student what it needs at the top.

The thresholds become known to owners; the weights are not told, but see docs/privacy.md on what an
owner can find out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.privacy.encoding import Encoding
from tasks.privacy.model import PrivateModel, power_model
from tasks.privacy.readout import Readout

Reals = NDArray[np.float64]
Floats = NDArray[np.float32]

LIMIT = 8.0
"""Standardised columns are clipped here."""


class DistilError(ValueError):
    """A student is too far from its teacher; says how far."""


@dataclass(frozen=True)
class DistilConfig:
    """Settings of a distillation.

    Attributes:
        steps: Most thresholds.
        rounds: Small trees that look for them.
        leaves: Of each.
        hidden: Squared units; a linear part takes two more.
        floor: Share of the rows whose scores tie in the target.
        top: Share of the rows that are drawn as often as all others together.
        updates: Of the optimiser.
        batch: Rows of an update.
        rate: Highest rate of the optimiser.
        seed: Of the draws.
        most_auc_loss: Loss of AUC above which a student is refused.
        most_ap_loss: The same for average precision; infinite: not asked.
    """

    steps: int = 384
    rounds: int = 200
    leaves: int = 4
    hidden: int = 48
    floor: float = 0.9
    top: float = 0.03
    updates: int = 6_000
    batch: int = 1_024
    rate: float = 8e-3
    seed: int = 0
    most_auc_loss: float = 0.005
    most_ap_loss: float = math.inf

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            ValueError: On a setting that cannot be.
        """
        if min(self.steps, self.rounds, self.hidden, self.updates, self.batch) < 1:
            raise ValueError("steps, rounds, hidden, updates and batch must be at least 1")
        if not (0 <= self.floor < 1 and 0 < self.top < 1):
            raise ValueError("floor must be in 0..1 and top between 0 and 1")


@dataclass(frozen=True)
class Distilled:
    """A student.

    Attributes:
        model: What can be compiled.
        places: Places of its columns among the teacher's.
        auc_loss: AUC of the teacher less that of the student, on the rows judged.
        ap_loss: The same for average precision.
    """

    model: PrivateModel
    places: tuple[int, ...]
    auc_loss: float
    ap_loss: float


@dataclass(frozen=True)
class Judged:
    """Rows that a student is judged on, none of them trained on.

    Attributes:
        rows: float32 [m, F].
        labels: [m] 1 or 0.
        scores: float64 [m], the teacher's.
    """

    rows: Floats
    labels: NDArray[Any]
    scores: Reals


def distil(
    rows: Floats,
    scores: ArrayLike,
    columns: Sequence[str],
    judged: Judged,
    config: DistilConfig | None = None,
    *,
    ties_below: float = -math.inf,
) -> Distilled:
    """Fit a student to a teacher's scores.

    Args:
        rows: float32 [n, F], without labels: only the teacher's scores are learnt from.
        scores: float64 [n], the teacher's log-odds.
        columns: Names of the F columns.
        judged: What the student is judged on.
        config: Settings.
        ties_below: Score below which the teacher's own ones count as tied; the student's do, too.

    Raises:
        DistilError: When the student loses more than it may.
    """
    settings = config or DistilConfig()
    target = np.asarray(scores, np.float64)
    lowest = float(np.quantile(target, settings.floor))
    tied = max(ties_below, lowest)
    floored = np.maximum(target, lowest)
    steps = find_steps(rows, floored, settings)
    places = tuple(sorted({place for place, _ in steps}))
    encoding = _encoding(rows[:, places], [columns[place] for place in places], steps, places)
    fitted = _fit(encoding.encode(rows[:, places]), floored, settings)
    model = replace(fitted.model(encoding), readout=Readout(floor=tied))
    student = np.maximum(model.score(judged.rows[:, places])[:, 0], tied)
    teacher = np.maximum(judged.scores, ties_below)
    losses = [
        measure(judged.labels, teacher) - measure(judged.labels, student) for measure in _measures()
    ]
    for name, loss, most in (
        ("AUC", losses[0], settings.most_auc_loss),
        ("average precision", losses[1], settings.most_ap_loss),
    ):
        if loss > most:
            raise DistilError(
                f"the student loses {loss:.4f} of {name}, more than {most:g}: allow more steps,"
                " hidden units or updates, or accept it with a larger most_auc_loss or most_ap_loss"
            )
    return Distilled(model, places, *losses)


def find_steps(rows: Floats, scores: Reals, config: DistilConfig) -> tuple[tuple[int, float], ...]:
    """Return the thresholds that explain scores best: place of a column and value, by gain.

    Args:
        rows: float32 [n, F].
        scores: float64 [n].
        config: Settings.
    """
    import lightgbm

    grown = lightgbm.train(
        {
            "objective": "regression",
            "num_leaves": config.leaves,
            "learning_rate": 0.15,
            "min_data_in_leaf": 20,
            "num_threads": 1,
            "verbose": -1,
            "seed": config.seed,
            "deterministic": True,
        },
        lightgbm.Dataset(rows, scores),
        config.rounds,
    )
    table = grown.trees_to_dataframe()
    splits = table[table.split_feature.notna()]
    gains = splits.groupby(["split_feature", "threshold"]).split_gain.sum()
    best = gains.sort_values(ascending=False).index[: config.steps]
    return tuple((int(name.removeprefix("Column_")), float(limit)) for name, limit in best)


def _encoding(
    rows: Floats,
    columns: Sequence[str],
    steps: Sequence[tuple[int, float]],
    places: Sequence[int],
) -> Encoding:
    """Return signed logarithms, standardised, and the steps."""
    values = rows.astype(np.float64)
    logarithms = np.sign(values) * np.log1p(np.abs(values))
    scale = logarithms.std(axis=0)
    scale[scale < 1e-9] = 1.0
    return Encoding(
        tuple(columns),
        logarithms.mean(axis=0),
        scale,
        np.full(len(columns), LIMIT),
        signed_log=True,
        beyond="clip",
        steps=tuple((places.index(place), limit) for place, limit in steps),
    )


@dataclass(frozen=True)
class _Network:
    """``linear @ x + sum(output * (hidden @ x + bias)**2)``, shifted.

    Attributes:
        linear: float64 [G].
        hidden: float64 [H, G].
        bias: float64 [H].
        output: float64 [H].
        offset: Added at the end.
        reach: Largest absolute value of the linear part over the training rows.
    """

    linear: Reals
    hidden: Reals
    bias: Reals
    output: Reals
    offset: float
    reach: float

    def model(self, encoding: Encoding) -> PrivateModel:
        """Return it as squares alone: ``u = (u / 4c + c)**2 - (u / 4c - c)**2``."""
        middle = max(math.sqrt(self.reach) / 2, 1e-3)
        line = self.linear / (4 * middle)
        weights = np.concatenate([self.hidden, line[None], line[None]])
        bias = np.concatenate([self.bias, [middle, -middle]])
        output = np.concatenate([self.output, [1.0, -1.0]])
        return power_model(encoding, [(weights, bias), (output[None], [self.offset])], 2)


def _fit(inputs: Reals, target: Reals, config: DistilConfig) -> _Network:
    """Fit by ridge regression, then by gradient descent with squared units beside it."""
    import torch

    middle, spread = inputs.mean(axis=0), max(float(target.std()), 1e-9)
    wanted = (target - target.mean()) / spread
    top = np.flatnonzero(target > np.quantile(target, 1 - config.top))
    centred = (inputs - middle).astype(np.float32)
    line, start = _ridge(centred, wanted, top)

    torch.manual_seed(config.seed)
    width = inputs.shape[1]
    linear = torch.nn.Linear(width, 1)
    hidden = torch.nn.Linear(width, config.hidden)
    output = torch.nn.Parameter(torch.randn(config.hidden) * 0.1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(line, dtype=torch.float32)[None])
        linear.bias.fill_(start)
        torch.nn.init.normal_(hidden.weight, std=0.5 / math.sqrt(width))
    _descend((linear, hidden, output), centred, wanted, top, config)

    read = [one.detach().double().numpy() for one in (linear.weight[0], hidden.weight)]
    bias = hidden.bias.detach().double().numpy() - read[1] @ middle
    offset = (float(linear.bias.detach()[0]) - read[0] @ middle) * spread + target.mean()
    scaled = read[0] * spread
    return _Network(
        linear=scaled,
        hidden=read[1],
        bias=bias,
        output=output.detach().double().numpy() * spread,
        offset=float(offset),
        reach=float(np.abs(inputs @ scaled).max()),
    )


def _ridge(centred: Floats, wanted: Reals, top: NDArray[np.int64]) -> tuple[Reals, float]:
    """Return weights and offset of a ridge regression in which the top rows count 20 times."""
    weight = np.ones(len(centred))
    weight[top] = 20.0
    width = centred.shape[1]
    gram = np.zeros((width + 1, width + 1))
    right = np.zeros(width + 1)
    for start in range(0, len(centred), 65_536):
        part = slice(start, start + 65_536)
        block = np.concatenate([centred[part], np.ones((len(centred[part]), 1))], axis=1)
        weighted = block * weight[part, None]
        gram += weighted.T @ block
        right += weighted.T @ wanted[part]
    found = np.linalg.solve(gram + 10.0 * np.eye(width + 1), right)
    return found[:-1], float(found[-1])


def _descend(
    parts: tuple[Any, Any, Any],
    centred: Floats,
    wanted: Reals,
    top: NDArray[np.int64],
    config: DistilConfig,
) -> None:
    """Train linear part, squared units and their weights, in place."""
    import torch

    linear, hidden, output = parts
    weights = [*linear.parameters(), *hidden.parameters(), output]
    optimizer = torch.optim.AdamW(
        [{"params": list(linear.parameters())}, {"params": [*hidden.parameters(), output]}],
        lr=config.rate,
        weight_decay=1e-3,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [config.rate / 4, config.rate], total_steps=config.updates
    )
    draws = np.random.default_rng(config.seed)
    goal = torch.tensor(wanted, dtype=torch.float32)
    half = config.batch // 2
    for _ in range(config.updates):
        chosen = np.concatenate([draws.integers(0, len(centred), half), draws.choice(top, half)])
        x = torch.from_numpy(centred[chosen])
        scores = linear(x)[:, 0] + hidden(x) ** 2 @ output
        loss = torch.nn.functional.smooth_l1_loss(scores, goal[chosen], beta=0.5)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()


def _measures() -> tuple[Any, Any]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return roc_auc_score, average_precision_score
