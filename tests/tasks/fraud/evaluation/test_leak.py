"""The leak alarm: figures that the data cannot give stop the run."""

from __future__ import annotations

import pytest

from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.leak_alarm import LeakSuspected, check_leak
from tasks.fraud.evaluation.protocol import FoldResult, Protocol, protocol_for


def result(ap: float, auc: float) -> FoldResult:
    return FoldResult(
        fold=0, test="", rows=10, frauds=1, ap=ap, auc=auc, cp=0.3, r1=0.7, cp_days=()
    )


ARMED = protocol_for(find_config("handbook"))


def test_honest_figures_pass() -> None:
    assert (ARMED.alarm_ap, ARMED.alarm_auc) == (0.80, 0.91)
    check_leak([result(0.74, 0.885), result(0.775, 0.90)], ARMED)


@pytest.mark.parametrize(("ap", "auc", "named"), [(0.81, 0.88, "AP 0.810"), (0.7, 0.92, "AUC")])
def test_figures_above_the_ceiling_raise(ap: float, auc: float, named: str) -> None:
    with pytest.raises(LeakSuspected, match=named) as caught:
        check_leak([result(ap, auc)] * 4, ARMED)
    assert "label delay" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_mean_counts_not_one_fold() -> None:
    check_leak([result(0.83, 0.89), result(0.70, 0.88)], ARMED)


def test_other_data_may_be_easier() -> None:
    check_leak([result(0.99, 0.99)], Protocol())
    with pytest.raises(LeakSuspected):
        check_leak([result(0.99, 0.99)], Protocol(alarm_ap=0.95))
