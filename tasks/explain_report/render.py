"""Writes the pages of explanations: a case, a model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from markupsafe import Markup

from tasks.cleaning.report import numbers
from tasks.cleaning.report.numbers import brief, count, fixed, signed
from tasks.cleaning.report.page import render_page
from tasks.explain.languages import number
from tasks.explain.record import ExplanationSet
from tasks.explain_report import plots
from tasks.explain_report.case import CasePage
from tasks.explain_report.model import ModelPage

HERE = "tasks.explain_report"
STYLE = "explain.css"
SHOWN = 12


def case_page(case: CasePage, *, bad: str = "bad", good: str = "good") -> str:
    """Return the page of a case as one HTML document.

    Args:
        case: What it shows.
        bad: What an outcome of 1 is called.
        good: What an outcome of 0 is called.
    """
    found = case.found
    contract = found.contract
    decision = found.decision(0)
    labels = dict(zip(contract.players.names, contract.labels, strict=True))
    first = case.reasons[0].text if case.reasons else "no single factor"
    changed = " and ".join(labels[p] for p in case.change.players) if case.change else ""
    return render_page(
        HERE,
        "case.html",
        _writers(),
        style=STYLE,
        c=case,
        f=found,
        key=found.keys[0],
        when=instant(int(found.times[0])) if found.times is not None else "",
        decision=decision,
        verdict={"block": "Blocked", "review": "Sent to review"}.get(decision, decision)
        or ("Not flagged" if contract.thresholds else "Scored"),
        sentence=f"score {found.decided[0]:.4f}; first reason: {first}",
        gap=f"{contract.gap:.1e}" if contract.gap else "0",
        picture=plots.waterfall(
            case.steps, contract.base, float(found.scores[0]), contract.unit
        ),
        beneath_picture=plots.waterfall(
            case.beneath_steps, case.beneath.found.base, float(case.beneath.found.scores[0]),
            case.beneath.unit,
        ) if case.beneath else "",
        changed=changed,
        labels=labels,
        bad=bad,
        good=good,
    )  # fmt: skip


def model_page(model: ModelPage) -> str:
    """Return the page of a model's explanations as one HTML document."""
    found = model.found
    strength = np.abs(found.values).mean(axis=0)
    order = np.argsort(-strength, kind="stable")[:SHOWN]
    labels = [found.contract.labels[p] for p in order]
    steady = model.steady.spread[order].tolist() if model.steady else [0.0] * len(order)
    first = np.bincount(found.order[:, 0], minlength=len(strength))
    pictures: dict[str, Any] = {
        "bars": plots.bars(labels, strength[order].tolist(), steady),
        "swarm": plots.swarm(labels, found.values[:, order], found.shown_data()[:, order]),
        "dependence": [_dependence(found, int(p), str(i)) for i, p in enumerate(order[:4])],
        "drift": plots.drift_lines(model.drifted) if model.drifted else Markup(""),
    }
    return render_page(
        HERE,
        "model.html",
        _writers(),
        style=STYLE,
        m=model,
        f=found,
        gap=f"{found.contract.gap:.1e}" if found.contract.gap else "0",
        first=(found.contract.labels[int(first.argmax())], first.max() / len(found)),
        pictures=pictures,
    )


def _dependence(found: ExplanationSet, player: int, key: str) -> Markup:
    """Draw a player over its feature whose ranks go with the contribution most."""
    players, values = found.contract.players, found.values[:, player]
    own = [f for f, owner in enumerate(players.owner) if owner == player]
    strongest = max(own, key=lambda f: _rank_correlation(found.data[:, f], values))
    return plots.dependence(
        key,
        found.contract.labels[player],
        players.features[strongest],
        found.data[:, strongest],
        values,
    )


def _rank_correlation(one: Any, two: Any) -> float:
    """Return |Spearman's rho| of the rows where both are known; 0 for a constant."""
    known = np.isfinite(one) & np.isfinite(two)
    if known.sum() < 3 or np.ptp(one[known]) == 0 or np.ptp(two[known]) == 0:
        return 0.0
    ranks = [np.unique(v[known], return_inverse=True)[1] for v in (one, two)]
    return abs(float(np.corrcoef(*ranks)[0, 1]))


def _writers() -> dict[str, Callable[..., str]]:
    writers: tuple[Callable[..., str], ...] = (
        count, fixed, signed, percent, brief, instant, number,
    )  # fmt: skip
    return {writer.__name__: writer for writer in writers}


def percent(value: float | None, places: int = 0) -> str:
    """Write a share as per cent."""
    return numbers.percent(value, places)


def instant(milliseconds: int) -> str:
    """Write epoch milliseconds.

    >>> instant(1_514_764_800_000)
    '1 Jan 2018, 00:00'
    """
    made = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return f"{made.day} {made:%b %Y, %H:%M}"
