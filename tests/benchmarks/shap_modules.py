"""Values of eleven kinds of torch module, and of a 1-D output, against shap's DeepExplainer.

Each module takes six features; the judge is Shapley's formula over all coalitions and 20 background
rows, in float64, by no code of the engine. A gap is the largest difference of a value; beside it
stands how far DeepExplainer's values are from adding up.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.explain.background import Background
from tasks.explain.engine import PlayerExplainer
from tasks.explain.errors import ExplanationError
from tasks.explain.scores import TorchScores
from tests.benchmarks._harness import emit, parser, run_program, table, threads

FEATURES, BACKGROUND, SILENT = 6, 20, 1e-5


class Functional(nn.Module):
    """ReLU as a function."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, 16), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[n, 1]``."""
        return self.second(nn.functional.relu(self.first(x)))


class Reused(nn.Module):
    """One ReLU module used twice."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.relu = nn.ReLU()
        self.layers = nn.ModuleList([nn.Linear(FEATURES, 16), nn.Linear(16, 16), nn.Linear(16, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[n, 1]``."""
        first, second, third = self.layers
        return third(self.relu(second(self.relu(first(x)))))


class Residual(nn.Module):
    """A layer added to its own input."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU())
        self.last = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[n, 1]``."""
        return self.last(x + self.inner(x))


class Gated(nn.Module):
    """A product of values and a sigmoid gate."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.value, self.gate = nn.Linear(FEATURES, 16), nn.Linear(FEATURES, 16)
        self.sigmoid, self.last = nn.Sigmoid(), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[n, 1]``."""
        return self.last(self.value(x) * self.sigmoid(self.gate(x)))


class Flat(nn.Module):
    """Scores without a second dimension."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.inner = behind(nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[n]``."""
        return self.inner(x)[:, 0]


def behind(*middle: nn.Module) -> nn.Sequential:
    """Return a linear layer, what is given, and a linear layer."""
    return nn.Sequential(nn.Linear(FEATURES, 16), *middle, nn.Linear(16, 1))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "sequential, ReLU": lambda: behind(nn.ReLU()),
    "batch normalisation": lambda: behind(nn.BatchNorm1d(16), nn.ReLU()),
    "GELU": lambda: behind(nn.GELU()),
    "residual": Residual,
    "functional ReLU": Functional,
    "reused ReLU": Reused,
    "gated product": Gated,
    "layer normalisation": lambda: behind(nn.LayerNorm(16)),
    "SiLU": lambda: behind(nn.SiLU()),
    "Hardswish": lambda: behind(nn.Hardswish()),
    "in-place ReLU": lambda: behind(nn.ReLU(inplace=True)),
    "1-D output": Flat,
}


def judge(module: nn.Module, rows: Any, background: Any) -> NDArray[np.float64]:
    """Return exact values ``[n, F]`` by Shapley's formula, in float64."""
    state = {key: value.double() for key, value in module.state_dict().items()}
    values = np.zeros((len(rows), FEATURES))
    for place, row in enumerate(rows):
        worth = {}
        for inside in itertools.product((False, True), repeat=FEATURES):
            mixed = torch.tensor(np.where(inside, row, background), dtype=torch.float64)
            worth[inside] = float(torch.func.functional_call(module, state, (mixed,)).mean())
        for inside, value in worth.items():
            for player in range(FEATURES):
                size = sum(inside) - inside[player]
                share = math.factorial(size) * math.factorial(FEATURES - 1 - size)
                sign = 1 if inside[player] else -1
                values[place, player] += sign * share / math.factorial(FEATURES) * value
    return values


def ours(module: nn.Module, rows: Any, background: Any) -> NDArray[np.float64] | None:
    """Return the engine's values; None where it refuses."""
    names = tuple(f"f{i}" for i in range(FEATURES))
    try:
        explainer = PlayerExplainer(TorchScores(module), Background(names, background.copy()))
        return explainer.explain(rows).values
    except ExplanationError:
        return None


def deep(module: nn.Module, rows: Any, background: Any) -> NDArray[np.float64] | None:
    """Return the values of shap's DeepExplainer, its check as users switch it off; or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap

        try:
            explainer = shap.DeepExplainer(module, torch.tensor(background))
            found = explainer.shap_values(torch.tensor(rows), check_additivity=False)
        except Exception:  # noqa: BLE001 - any refusal is counted as one
            return None
    return np.asarray(found).reshape(len(rows), FEATURES)


def made_module(kind: str, seed: int) -> nn.Module:
    """Return a module with weights drawn by a seed, its batch statistics from drawn rows."""
    torch.manual_seed(seed)
    module = KINDS[kind]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
        module.train()
        module(torch.randn(256, FEATURES))
    return module.eval()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("shap-modules", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="draws of weights (default 10)")
    args = made.parse_args(argv)
    seeds, rows = (1, 2) if args.smoke else (10, 4)
    seeds = args.seeds or seeds
    gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    deep_gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    unadded = [0.0]
    refused = dict.fromkeys(("ours", "deep"), 0)
    with threads(1):
        for kind, seed in itertools.product(KINDS, range(args.seed, args.seed + seeds)):
            rng = np.random.default_rng(seed)
            background = rng.normal(size=(BACKGROUND, FEATURES)).astype(np.float32)
            cases = rng.normal(size=(rows, FEATURES)).astype(np.float32)
            module = made_module(kind, seed)
            exact = judge(module, cases, background)
            for name, explain, into in (("ours", ours, gaps), ("deep", deep, deep_gaps)):
                # DeepExplainer hooks into the module it is given.
                found = explain(made_module(kind, seed), cases, background)
                refused[name] += found is None
                if found is not None:
                    into[kind].append(float(np.abs(found - exact).max()))
                if found is not None and name == "deep":
                    unadded.append(float(np.abs((found - exact).sum(axis=1)).max()))
    worst, deep_worst = (
        {kind: max(values, default=math.nan) for kind, values in each.items()}
        for each in (gaps, deep_gaps)
    )
    table(
        "largest difference from exact",
        ("module", "ours", "shap Deep"),
        [(kind, worst[kind], deep_worst[kind]) for kind in KINDS],
    )
    figures: dict[str, Any] = {
        "kinds": len(KINDS),
        "seeds": seeds,
        "worst_gap": float(np.nanmax(list(worst.values()))),
        "deep_worst_gap": float(np.nanmax(list(deep_worst.values()))),
        "deep_additivity_max": max(unadded),
        "silent_errors": sum(gap > SILENT for each in gaps.values() for gap in each),
        "deep_errors": sum(gap > SILENT for each in deep_gaps.values() for gap in each),
        "explained": sum(map(len, gaps.values())),
        "refused": refused["ours"],
        "deep_refused": refused["deep"],
        "gaps": worst,
        "deep_gaps": deep_worst,
    }
    emit(figures, args)


if __name__ == "__main__":
    run_program("shap-modules", main)
