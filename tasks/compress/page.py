"""What was planned and tried, as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernels.compression.sensitivity import LayerSensitivity
from tasks.cleaning.report.page import render_page
from tasks.compress.pareto_plot import pareto_plot
from tasks.compress.sensitivity_plot import sensitivity_plot

PACKAGE, OWN_STYLE = "tasks.compress", "compress.css"
FILTERS: Mapping[str, Callable[..., str]] = {
    "two": "{:.2f}".format,
    "times": "{:.2f} x".format,
    "loss": "{:+.4f}".format,
    "whole": "{:,.0f}".format,
}


def compress_page(
    plan: Mapping[str, Any], done: Mapping[str, Any], layers: Sequence[LayerSensitivity]
) -> str:
    """Return the page.

    Args:
        plan: Of `tasks.compress.record.plan_record`.
        done: Of `outcome_record`.
        layers: Of what was taken.
    """
    taken = next(one for one in done["trials"] if one["taken"])
    return render_page(
        PACKAGE,
        "compress.html",
        FILTERS,
        style=OWN_STYLE,
        plan=plan,
        done=done,
        taken=taken,
        plot=pareto_plot(done["whole"], done["trials"]).render(),
        layers=sensitivity_plot(layers).render(),
    )
