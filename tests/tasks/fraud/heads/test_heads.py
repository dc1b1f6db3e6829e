"""Scoring heads: they learn, calibrate, export to ONNX within 1e-5, and refuse bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.runtime.callbacks import History, StepMetrics
from tasks.fraud.evaluation.metrics import roc_auc
from tasks.fraud.heads import (
    Head,
    HeadError,
    LogisticConfig,
    MlpConfig,
    TreeConfig,
    fit_logistic,
    fit_mlp,
    fit_trees,
)
from tasks.fraud.heads.head import Blend
from tasks.fraud.heads.mlp import MlpBatches
from tasks.fraud.heads.scaling import fit_scaling
from tasks.fraud.heads.trees import TreeScorer, float32_below

SMALL_TREES = TreeConfig(rounds=25, min_rows=20, seeds=2, bins=255, legitimate_rows=1500)


def sample(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of wild scales, one constant and one with "never" durations; labels from two of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    logit = 1.5 * x[:, 0] - np.abs(x[:, 1]) - 2.0
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int8)
    x *= [1.0, 10.0, 1e4, 0.01, 1.0, 1e6, 1.0, 0.0]
    x[:, 4] = np.where(x[:, 4] > 0, 1e9, x[:, 4] * 1e4)
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def heads() -> dict[str, Head]:
    x, y = sample(4000, 1)
    later_x, later_y = sample(2000, 2)
    trees = fit_trees(x, y, SMALL_TREES)
    hinged = fit_logistic(x, y, LogisticConfig(knots=4))
    fitted = {
        "trees": trees,
        "logistic": fit_logistic(x, y),
        "hinged": hinged,
        "mlp": fit_mlp(x, y, MlpConfig(hidden=(16, 8), epochs=4, batch=256, learning_rate=1e-2)),
        "blend": Head(Blend((trees.scorer, hinged.scorer), (0.7, 0.3))),
    }
    return {name: head.calibrated(later_x, later_y) for name, head in fitted.items()}


ALL = ["trees", "logistic", "hinged", "mlp", "blend"]


@pytest.mark.parametrize("name", ALL)
def test_head_learns(heads: dict[str, Head], name: str) -> None:
    x, y = sample(3000, 3)
    p = heads[name].predict(x)
    assert p.dtype == np.float64
    assert p.shape == (3000,)
    assert ((p >= 0) & (p <= 1)).all()
    assert roc_auc(y, p) > (0.78)
    assert abs(p.mean() - y.mean()) < 0.03  # calibrated on held-out rows


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", ["none", "platt", "beta"])
def test_onnx_equals_predict(heads: dict[str, Head], name: str, method: Any) -> None:
    import onnxruntime

    x, y = sample(3000, 4)
    head = Head(heads[name].scorer)
    if method != "none":
        head = head.calibrated(x, y, method=method)
    content = head.to_onnx()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.type, entry.shape[1]) == ("features", "tensor(float)", 8)
    assert (exit_.name, len(exit_.shape)) == ("probability", 1)
    found = session.run(None, {"features": x})[0]
    assert found.shape == (3000,)
    assert np.abs(found - head.predict(x)).max() <= 1e-5
    assert session.run(None, {"features": x[:1]})[0].shape == (1,)


def large_numbers(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Days as YYYYMMDD, epoch seconds of one week and a plain number; labels from all three."""
    rng = np.random.default_rng(seed)
    day = rng.integers(0, 28, n)
    second = rng.integers(0, 7 * 86_400, n)
    plain = rng.normal(size=n)
    logit = 0.4 * (day - 14.0) + second / 86_400 - 4.0 + plain
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int8)
    x = np.stack([20_180_401 + day, 1_522_540_800 + second, plain], axis=1)
    return x.astype(np.float32), y


@pytest.mark.parametrize(
    "fit",
    [
        fit_logistic,
        lambda x, y: fit_logistic(x, y, LogisticConfig(knots=4, l2=0.1)),
        lambda x, y: fit_mlp(x, y, MlpConfig(hidden=(16, 8), batch=128, learning_rate=1e-2)),
    ],
    ids=["logistic", "hinged", "mlp"],
)
def test_onnx_keeps_what_large_numbers_of_small_spread_tell(fit: Any) -> None:
    """Float32 logarithms of dates and instants would all but tie; both sides take float64."""
    import onnxruntime

    x, y = large_numbers(4000, 15)
    head = fit(x, y).calibrated(*large_numbers(2000, 16))
    later_x, later_y = large_numbers(3000, 17)
    expected = head.predict(later_x)
    assert roc_auc(later_y, expected) > 0.85
    session = onnxruntime.InferenceSession(head.to_onnx(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"features": later_x})[0]
    assert np.abs(found - expected).max() <= 1e-5


def test_onnx_uses_standard_operators_only(heads: dict[str, Head]) -> None:
    import onnx

    model = onnx.load_from_string(heads["blend"].to_onnx())
    assert {o.domain for o in model.opset_import} == {"", "ai.onnx.ml"}
    assert sum(n.op_type == "TreeEnsembleRegressor" for n in model.graph.node) == 1


def test_trees_agree_at_the_thresholds() -> None:
    """Rows that lie exactly on split thresholds take the same branch in ONNX."""
    import onnx
    import onnxruntime

    x = np.arange(400, dtype=np.float32)[:, None] / 7.0
    head = fit_trees(x, (x[:, 0] > 30).astype(int), SMALL_TREES)
    content = head.to_onnx()
    node = next(
        n for n in onnx.load_from_string(content).graph.node if n.op_type == "TreeEnsembleRegressor"
    )
    thresholds = next(a.floats for a in node.attribute if a.name == "nodes_values")
    edges = np.unique(np.array(thresholds, dtype=np.float32))
    around = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    rows = around.astype(np.float32)[:, None]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"features": rows})[0] - head.predict(rows)).max() <= 1e-6


def test_trees_round_trip_as_text(heads: dict[str, Head]) -> None:
    x, _ = sample(500, 5)
    scorer = heads["trees"].scorer
    assert isinstance(scorer, TreeScorer)
    again = TreeScorer.from_text(scorer.to_text())
    assert np.array_equal(again.logit(x), scorer.logit(x))


@pytest.mark.parametrize("kind", ["trees", "logistic", "mlp"])
def test_fits_are_repeatable(kind: str) -> None:
    x, y = sample(1500, 6)
    fits = {
        "trees": lambda: fit_trees(x, y, SMALL_TREES),
        "logistic": lambda: fit_logistic(x, y),
        "mlp": lambda: fit_mlp(x, y, MlpConfig(hidden=(8,), epochs=2)),
    }
    assert np.array_equal(fits[kind]().predict(x), fits[kind]().predict(x))


def test_sampled_legitimate_rows_stand_for_all() -> None:
    x, y = sample(6000, 7)
    head = fit_trees(x, y, TreeConfig(rounds=60, min_rows=20, legitimate_rows=1000))
    assert abs(head.predict(x).mean() - y.mean()) < 0.02


def test_the_floor_ties_the_lowest_scores_and_survives_calibration() -> None:
    import onnxruntime

    x, y = sample(2000, 13)
    plain = fit_trees(x, y, SMALL_TREES)
    floored = fit_trees(x, y, replace(SMALL_TREES, floor=0.6))
    p = floored.predict(x)
    assert np.mean(p == p.min()) == pytest.approx(0.6, abs=0.03)
    above = p > p.min()
    assert np.array_equal(p[above], plain.predict(x)[above])
    later = floored.calibrated(*sample(2000, 14))
    assert later.calibration.floor == floored.calibration.floor
    q = later.predict(x)
    assert np.mean(q == q.min()) == np.mean(p == p.min())
    session = onnxruntime.InferenceSession(later.to_onnx(), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"features": x})[0] - q).max() <= 1e-5


def test_mlp_leaves_the_global_generator_alone() -> None:
    import torch

    x, y = sample(300, 8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_mlp(x, y, MlpConfig(hidden=(4,), epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_mlp_batches_hold_every_row_once_an_epoch_in_a_new_order() -> None:
    rows = np.arange(50, dtype=np.float32)
    batches = MlpBatches(rows[:, None], rows % 2, size=16, seed=3)
    assert batches.per_epoch == 4
    epochs = []
    for epoch in range(2):
        found = [batches(4 * epoch + i) for i in range(4)]
        assert [len(target) for _, target in found] == [16, 16, 16, 2]
        assert all((x[:, 0] % 2 == target).all() for x, target in found)
        epochs.append(np.concatenate([x[:, 0].numpy() for x, _ in found]))
        assert np.array_equal(np.sort(epochs[-1]), rows)
    assert not np.array_equal(*epochs)
    again = MlpBatches(rows[:, None], rows % 2, size=16, seed=3)
    assert np.array_equal(again(5)[0][:, 0].numpy(), epochs[1][16:32])
    other = MlpBatches(rows[:, None], rows % 2, size=16, seed=4)
    assert not np.array_equal(other(5)[0][:, 0].numpy(), epochs[1][16:32])


def test_a_killed_mlp_fit_continues_bit_for_bit(tmp_path: Path) -> None:
    class Kill:
        def on_step(self, metrics: StepMetrics) -> None:
            if metrics.step == 7:
                raise KeyboardInterrupt

    x, y = sample(600, 18)
    config = MlpConfig(hidden=(8,), epochs=4, batch=200)
    whole, rest = History(), History()
    expected = fit_mlp(x, y, config, callbacks=[whole]).predict(x)
    assert [m.step for m in whole.steps] == list(range(1, 13))
    rates = [m.learning_rate for m in whole.steps]
    assert max(rates) == config.learning_rate
    assert rates[-1] < rates[-2] < config.learning_rate
    with pytest.raises(KeyboardInterrupt):
        fit_mlp(x, y, config, callbacks=[Kill()], checkpoint_dir=tmp_path)
    resumed = fit_mlp(x, y, config, callbacks=[rest], checkpoint_dir=tmp_path)
    assert [m.step for m in rest.steps] == list(range(7, 13))
    assert np.array_equal(resumed.predict(x), expected)


def test_logistic_is_one_dot_product(heads: dict[str, Head]) -> None:
    x, _ = sample(50, 9)
    scorer: Any = heads["hinged"].scorer
    encoded = scorer.encode(x)
    assert encoded.shape == (50, 8 * 5)
    assert np.allclose(encoded @ scorer.weights + scorer.bias, scorer.logit(x))


def test_logistic_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = sample(2000, 10)
    z = fit_scaling(x).encode(x)
    ours: Any = fit_logistic(x, y, LogisticConfig(l2=10.0)).scorer
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000).fit(z, y)
    assert np.abs(ours.weights - theirs.coef_[0]).max() < 1e-4
    assert abs(ours.bias - theirs.intercept_[0]) < 1e-4


def test_separable_labels_do_not_diverge() -> None:
    x = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]
    head = fit_logistic(x, (x[:, 0] > 0).astype(int), LogisticConfig(l2=1e-3))
    p = head.predict(x)
    assert np.isfinite(p).all()
    assert p[-1] > 0.99
    assert p[0] < 0.01


def test_empty_input_gives_no_scores(heads: dict[str, Head]) -> None:
    for head in heads.values():
        assert head.predict(np.zeros((0, 8), np.float32)).shape == (0,)


def test_float32_below_never_rounds_up() -> None:
    for value in (0.1, 1 / 3, -0.1, 1e-40, 1e300, -1e300, 220.0):
        assert float32_below(value) <= max(value, -float(np.finfo(np.float32).max))
    assert float32_below(220.0) == 220.0


@pytest.mark.parametrize("fit", [fit_trees, fit_logistic, fit_mlp])
def test_bad_training_data_is_named(fit: Any) -> None:
    x, y = sample(100, 11)
    with pytest.raises(HeadError, match="all 100 training labels are 0"):
        fit(x, np.zeros(100, int))
    with pytest.raises(HeadError, match="unlabelled"):
        fit(x, np.where(y == 1, 1, -1))
    with pytest.raises(HeadError, match="labels for 100 rows"):
        fit(x, y[:-1])
    broken = x.copy()
    broken[3, 2] = np.nan
    with pytest.raises(HeadError, match="feature 2 holds NaN"):
        fit(broken, y)


def test_bad_rows_are_named(heads: dict[str, Head]) -> None:
    with pytest.raises(HeadError, match=r"\(5, 7\)"):
        heads["trees"].predict(np.zeros((5, 7), np.float32))


def test_bad_settings_are_named() -> None:
    for wrong in (
        lambda: TreeConfig(rounds=0),
        lambda: TreeConfig(leaves=1),
        lambda: TreeConfig(columns=0.0),
        lambda: TreeConfig(l2=-1.0),
        lambda: TreeConfig(floor=1.0),
        lambda: LogisticConfig(l2=0.0),
        lambda: LogisticConfig(knots=-1),
        lambda: MlpConfig(epochs=0),
        lambda: MlpConfig(hidden=()),
        lambda: MlpConfig(hidden=(8, 0)),
        lambda: MlpConfig(dropout=1.0),
        lambda: MlpConfig(weight_decay=-1.0),
        lambda: MlpConfig(seed=-1),
        lambda: TreeScorer([]),
        lambda: Blend((), ()),
    ):
        with pytest.raises(HeadError):
            wrong()
    x, y = sample(200, 12)
    wide, narrow = fit_logistic(x, y).scorer, fit_logistic(x[:, :2], y).scorer
    with pytest.raises(HeadError, match="same features"):
        Blend((wide, narrow), (0.5, 0.5))


def test_mlp_shape_is_checked() -> None:
    from models.mlp import MlpShape

    with pytest.raises(ValueError, match="hidden"):
        MlpShape(3, ())
    with pytest.raises(ValueError, match="dropout"):
        MlpShape(3, (4,), dropout=1.0)
