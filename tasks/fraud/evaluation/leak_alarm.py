"""Figures too good to be true are an error: they mean that test labels reached the features.

On the public handbook folds 20-25 % of the frauds happen before any label can be known; an oracle
that knows everything else reaches AP .775 and AUC .887. A mean above the alarm is a leak. The
dataset config says what its data can give (``[alarm]``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.fraud.evaluation.protocol import summarise

if TYPE_CHECKING:
    from tasks.fraud.evaluation.protocol import FoldResult, Protocol


class LeakSuspected(ValueError):  # noqa: N818 - a suspicion, named as the field speaks of it
    """Mean figures above what the data can give without future labels."""


def check_leak(results: Sequence[FoldResult], protocol: Protocol) -> None:
    """Raise when the mean AP or AUC over folds exceeds the protocol's alarm.

    Raises:
        LeakSuspected: With the figures and where to look first.
    """
    summary = summarise(results)
    over = [
        f"mean {name.upper()} {summary[name]:.3f} is above {limit:.2f}"
        for name, limit in (("ap", protocol.alarm_ap), ("auc", protocol.alarm_auc))
        if summary[name] > limit
    ]
    if over:
        raise LeakSuspected(
            f"{' and '.join(over)} on {len(results)} folds, more than this data can give: labels "
            f"younger than {protocol.delay_days} days probably reach a feature. Check the label "
            "delay and label_time of the dataset config, columns made from the label, and "
            "features computed over the whole file"
        )
