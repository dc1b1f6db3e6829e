"""Heads of trees as they are scored encrypted."""

from __future__ import annotations

import numpy as np

from connectors.private.fraud_head import readout_of, trees_of
from tasks.fraud.heads import TreeConfig, fit_trees


def test_trees_of_a_head_are_the_mean_of_its_models():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 6)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + rng.normal(size=2_000) > 1.5).astype(int)
    head = fit_trees(x, y, TreeConfig(rounds=12, seeds=3, floor=0.5))
    columns = tuple("abcdef")
    model = trees_of(head.scorer, columns, readout_of(head.calibration, ()))
    own = x[:, [columns.index(column) for column in model.encoding.columns]]
    assert len(set(head.scorer.to_text())) == 3
    np.testing.assert_allclose(model.score(own)[:, 0], head.scorer.logit(x), atol=1e-12)
    assert model.readout.floor == head.calibration.floor
    found = model.readout.outcome(model.score(own))[:, 0]
    np.testing.assert_allclose(found, head.predict(x), atol=1e-12)
