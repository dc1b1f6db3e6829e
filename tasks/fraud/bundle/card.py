"""The model card of a bundle, as Markdown (after Mitchell et al., "Model Cards", 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.fraud.bundle.format import Manifest
    from tasks.fraud.bundle.parts import BundleParts

_INTENT = """\
Scores single transactions for review by people. It orders and flags; it is not meant to refuse
payments without a person or a rule beside it. It knows only the columns named below.
"""
_LIMITS = """\
Labels count only after the delay, so the first days of a new fraud pattern cannot be learnt from.
Figures hold for data like the test weeks; habits drift, so the model is trained again on a
schedule and replaced only when a paired comparison says so. Entities never seen before score
through a declared default.
"""


def render_card(manifest: Manifest, parts: BundleParts) -> str:
    """Return the Markdown text of a bundle's card."""
    config = parts.config
    until = datetime.fromtimestamp(manifest.trained_until / 1000, tz=UTC)
    entities = ", ".join(f"{e.column} ({e.kind})" for e in config.entities)
    facts = {
        "Dataset": config.name,
        "Entities": entities,
        "Label delay": f"{config.label_delay_days:g} days",
        "Learnt from events until": f"{until:%Y-%m-%d %H:%M} UTC",
        "Active head": f"{manifest.active} (others: {', '.join(manifest.heads)})",
        "Features": f"{len(parts.feature_names)}, version {manifest.features_version}",
        "Data SHA-256": manifest.data_digest,
        "Code commit": manifest.git_commit,
        "Written": manifest.created,
    }
    lines = [f"# Model card: fraud-{config.name}", "", "## Use", "", _INTENT, "## Facts", ""]
    lines += ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items()), ""]
    lines += ["## Figures", "", *_figures(parts.metrics), ""]
    lines += ["## Thresholds", "", *_thresholds(parts.thresholds), "", "## Limits", "", _LIMITS]
    return "\n".join(lines)


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    lines = ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in flatten(metrics)]
    return lines


def _thresholds(thresholds: Mapping[str, Any]) -> list[str]:
    lines = ["| rule | score |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in flatten(thresholds)]
    return lines


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted name and printed value of every number and text in nested mappings."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            rows.append((prefix + name, f"{value:.4f}"))
        elif isinstance(value, int | str):
            rows.append((prefix + name, str(value)))
        elif isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
            rows.append((prefix + name, " .. ".join(f"{v:.4f}" for v in value)))
    return rows
