"""Thresholds: capacity, false-positive rate and cost, checked against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.fraud.evaluation.metrics import recall_at_fpr
from tasks.fraud.evaluation.thresholds import (
    CostModel,
    ThresholdConfig,
    capacity_threshold,
    cost_threshold,
    fit_thresholds,
    fpr_threshold,
    total_cost,
)


def sample(seed: int = 1, n: int = 2000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.05).astype(int)
    return {
        "score": np.round(np.clip(0.3 * label + rng.random(n) * 0.7, 0, 1), 3),
        "label": label,
        "amount": np.round(rng.lognormal(3.5, 1.0, n), 2),
        "day": rng.integers(0, 7, n),
        "entity": rng.integers(0, 150, n),
    }


def test_unlabelled_rows_use_up_capacity_and_nothing_else() -> None:
    s = sample()
    hidden = np.where(np.arange(len(s["label"])) % 10 == 0, s["label"], -1)
    few, whole = fit_thresholds(**s | {"label": hidden}), fit_thresholds(**s)
    assert few.alerts_per_day == whole.alerts_per_day
    known = {name: values[hidden >= 0] for name, values in s.items()}
    alone = fit_thresholds(**known)
    assert (few.fpr, few.cost) == (alone.fpr, alone.cost)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_capacity_is_kept_and_used(k: int) -> None:
    s = sample()
    threshold = capacity_threshold(s["score"], s["day"], s["entity"], k)

    def alerts(at: float) -> float:
        hit = s["score"] >= at
        pairs = set(zip(s["day"][hit].tolist(), s["entity"][hit].tolist(), strict=True))
        return len(pairs) / 7

    assert alerts(threshold) <= k
    lower = s["score"][s["score"] < threshold]
    assert alerts(lower.max()) > k


def test_capacity_beyond_all_entities_alerts_everything() -> None:
    assert capacity_threshold([0.2, 0.4], [0, 0], [1, 2], 100) == 0.2


def test_fpr_threshold_gives_the_protocols_recall() -> None:
    s = sample(2)
    threshold = fpr_threshold(s["score"], s["label"], 0.01)
    recall = np.mean(s["score"][s["label"] == 1] >= threshold)
    assert recall == recall_at_fpr(s["label"], s["score"], 0.01)
    assert np.mean(s["score"][s["label"] == 0] >= threshold) <= 0.01


def test_cost_threshold_is_the_cheapest() -> None:
    s = sample(3, 400)
    cost = CostModel(review=6.0, friction=1.5, recovered=0.9)
    found = cost_threshold(s["score"], s["label"], s["amount"], cost)
    candidates = [*np.unique(s["score"]), np.inf]
    prices = [total_cost(s["score"], s["label"], s["amount"], c, cost) for c in candidates]
    reached = total_cost(s["score"], s["label"], s["amount"], found, cost)
    assert reached == pytest.approx(min(prices))


def test_alerting_that_never_pays_is_switched_off() -> None:
    assert cost_threshold([0.9, 0.1], [1, 0], [1.0, 1.0], CostModel(review=50.0)) == np.inf


def test_fitted_thresholds_are_plain_data() -> None:
    s = sample(4)
    fitted = fit_thresholds(**s, config=ThresholdConfig(alerts_per_day=(5,)))
    data = fitted.to_dict()
    assert list(data["alerts_per_day"]) == ["5"]
    assert list(data["fpr"]) == ["0.001", "0.005", "0.01"]
    assert data["cost"] == fitted.cost
    assert fitted.fpr[0.001] >= fitted.fpr[0.01]
    assert len(fit_thresholds(**s).alerts_per_day) == 3


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="legitimate"):
        fpr_threshold([0.5], [1], 0.01)
    with pytest.raises(ValueError, match="finite"):
        capacity_threshold([np.nan], [0], [0], 1)
    with pytest.raises(ValueError, match="alerts_per_day"):
        ThresholdConfig(alerts_per_day=(0,))
    with pytest.raises(ValueError, match="false_positive_rates"):
        ThresholdConfig(false_positive_rates=(1.0,))
    with pytest.raises(ValueError, match="negative"):
        CostModel(review=-1.0)
    with pytest.raises(ValueError, match="recovered"):
        CostModel(recovered=0.0)
