"""The bar of a run, and what it cost."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kernels.runtime.cost import CostConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.progress import ProgressBar
from kernels.runtime.runner import Runner, run
from tests.kernels.runtime.small import batches, config, make_model, squared


def test_the_bar_shows_steps_loss_and_metric():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    plan = config(5, evaluation=EvaluationConfig(every=5))
    with ProgressBar("small", console) as bar:
        Runner(make_model(), batches, squared, plan, callbacks=[bar], evaluate=lambda _: 0.25).run()
    shown = text.getvalue()
    assert "small" in shown
    assert "5/5" in shown
    assert "items/s, metric 0.25" in shown


def test_a_run_tells_what_it_cost():
    plan = config(3, cost=CostConfig(watts=120, per_hour=2.0, currency="CHF"))
    cost = run(make_model(), batches, squared, plan).cost
    assert cost.seconds > 0
    assert cost.cpu_seconds > 0
    assert cost.energy_wh == pytest.approx(cost.seconds / 30)
    assert cost.price == pytest.approx(cost.seconds / 1_800)
    assert str(cost).endswith("CHF")
    unknown = run(make_model(), batches, squared, config(1)).cost
    assert (unknown.energy_wh, unknown.price) == (None, None)
    with pytest.raises(ValueError, match="0 is unknown"):
        CostConfig(watts=-1)
