"""The explanation part of ``penstock demo``: the champion and one blocked payment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DAYS, ROWS = 35.0, 1_500
"""Five weeks, so that drift can be judged, of as many rows as a second or two explain."""


def explain_champion(
    console: Console, data: Path, report: Path, folder: Path, config: str = "demo"
) -> list[str]:
    """Explain the serving model and the highest score of the last day; add it to the report.

    Args:
        console: Where it is told.
        data: The bank's payments.
        report: The demo's report.
        folder: Where pages and records are written.
        config: Dataset config, whose name finds the model.

    Returns:
        Where to look: lines of text.
    """
    from flows.cli.explain import run_cases, show_cases
    from flows.cli.paths import nearby
    from flows.cli.progress import shown
    from infra.files import write_atomically
    from tasks.fraud.report.added import with_added

    cases = run_cases(console, data, folder / "case", config, worst=1)
    show_cases(console, cases)
    with shown("explaining the champion", console):
        from flows.explain_model import explain_model

        made = explain_model(str(data), str(folder / "model"), config, days=DAYS, rows=ROWS)
    strongest, most = made["strongest"][0]
    gap = made["metrics"]["shap/additivity_max"]
    console.print(
        f"{made['rows']:,} payments explained, largest additivity gap {gap:.0e}; strongest on "
        f"average: {strongest} ({most:.2f} log-odds); weeks beyond chance: {len(made['alarms'])}",
        highlight=False,
        soft_wrap=True,
    )
    case = cases["cases"][0]
    html = with_added(
        report.read_text(encoding="utf-8"),
        "explained",
        "Explained",
        case=case,
        gap=f"{gap:.0e}",
        rows=made["rows"],
        case_file=f"{folder.name}/case/{case['file']}",
        model_file=f"{folder.name}/model/report.html",
    )
    write_atomically(report, html)
    return [
        f"explained {nearby(case['page'])}    (one case: reasons, nearest change, like cases)",
        f"          {nearby(made['report'])}    (the model: drivers, segments, drift)",
    ]
