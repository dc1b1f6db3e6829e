"""What was planned and tried, as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks.cleaning.report.page import render_page
from tasks.compress.pareto_plot import pareto_plot

PACKAGE, OWN_STYLE = "tasks.compress", "compress.css"
FILTERS: Mapping[str, Callable[..., str]] = {
    "two": "{:.2f}".format,
    "times": "{:.2f} x".format,
    "loss": "{:+.4f}".format,
    "whole": "{:,.0f}".format,
}


def compress_page(plan: Mapping[str, Any], done: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        plan: Of `tasks.compress.record.plan_record`.
        done: Of `outcome_record`.
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
    )
