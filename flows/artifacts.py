"""What a flow leaves on its page in Prefect: a summary, tables, a link to the MLflow run."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

if TYPE_CHECKING:
    from connectors.tracking import TrackedRun

MAX_COLUMNS = 100
"""Columns of a table on a flow's page; the HTML page has more."""
COLUMNS = ("ap", "ap_std", "auc", "cp", "r1")


def publish_training(record: dict[str, Any], run: TrackedRun) -> None:
    """Show the figures of a training run, its checks and decision."""
    key = artifact_key(record["dataset"])
    create_markdown_artifact(
        training_summary(record), key=f"{key}-training", description="What was trained, and why"
    )
    create_table_artifact(
        head_table(record), key=f"{key}-heads", description="Heads on the same test folds"
    )
    publish_checks(record["dataset"], record["checks"]["report"])
    if run.page.startswith("http"):
        create_link_artifact(run.page, key=f"{key}-run", link_text="MLflow run")


def publish_checks(dataset: str, report: dict[str, Any]) -> None:
    """Show what the checks did with the rows of a file."""
    create_table_artifact(
        check_table(report),
        key=f"{artifact_key(dataset)}-checks",
        description="Rows in, used and set aside",
    )


def publish_own_training(record: dict[str, Any]) -> None:
    """Show what came of training a user's model."""
    key = artifact_key(record["module"])
    told = {
        "steps": f"{record['finished']:,} ({record['steps']:,} of them now)",
        "ended": record["stopped"] or "at the last step",
        "best": "not judged" if record["best"] is None else f"{record['best']:.6g}",
        "skipped steps": str(record["skipped"]),
        "format": record["precision"],
        "seconds": f"{record['cost']['seconds']:.1f}",
        "weights": record["weights"],
    }
    create_table_artifact([{"what": k, "value": v} for k, v in told.items()], key=f"{key}-training")
    if record["run_page"].startswith("http"):
        create_link_artifact(record["run_page"], key=f"{key}-run", link_text="MLflow run")


def publish_scores(record: dict[str, Any]) -> None:
    """Show what a scoring run made."""
    rows = [{"what": k, "value": str(v)} for k, v in record.items()]
    create_table_artifact(rows, key=f"{artifact_key(record['model'])}-scores")


def publish_private_batch(record: dict[str, Any]) -> None:
    """Show what came of a table that was scored encrypted."""
    told = {
        "rows": f"{record['rows']:,}",
        "refused": f"{record['refused']:,}",
        **{f"band {name}": f"{n:,}" for name, n in record["bands"].items()},
        "sent": f"{record['up_bytes'] / 1e6:,.1f} MB",
        "received": f"{record['down_bytes'] / 1e6:,.1f} MB",
        "receipts": " ".join(record["receipts"]),
        "file": record["out"],
    }
    rows = [{"what": what, "value": value} for what, value in told.items()]
    create_table_artifact(rows, key="encrypted-batch")


def publish_cleaning(record: dict[str, Any]) -> None:
    """Show what a cleaning run did to a table, and where its report is."""
    told = {
        **{name.replace("_", " "): f"{n:,}" for name, n in record["counts"].items()},
        "cells changed": f"{record['changed']:,}",
        "correct cells changed at most": f"{record['promised_harm']:.3%}",
        "findings for review": f"{record['review']:,}",
        "report": record["report"],
    }
    rows = [{"what": what, "value": value} for what, value in told.items()]
    create_table_artifact(rows, key=f"{artifact_key(record['source'])}-cleaning")


def publish_inspection_training(record: dict[str, Any]) -> None:
    """Show the promise of an inspection model, its figures, and whether it serves."""
    from tasks.defects.boxes.figures import box_words

    finished, promotion = record["finished"], record["promotion"]
    types, boxes = finished["types"], finished["boxes"]
    figures = finished["figures"].get(finished["shown"], {})
    told = {
        "images": ", ".join(f"{n:,} {role}" for role, n in record["fitted"]["roles"].items()),
        "quarantined": f"{record['fitted']['quarantined']:,}",
        "AUROC": f"{figures['auroc']:.3f}" if "auroc" in figures else "not measured",
        "figures of": finished["shown"],
        **({"types": f"{types['right']} of {types['parts']} parts named right"} if types else {}),
        **({"boxes": box_words(boxes).removeprefix("boxes: ")} if boxes else {}),
        **{f"promise {i}": text for i, text in enumerate(finished["thresholds"]["in_words"], 1)},
        "promotion": promotion["reason"] if promotion else "not asked for",
        "bundle": record["bundle"],
    }
    key = artifact_key(record["line"])
    rows = [{"what": what, "value": value} for what, value in told.items()]
    create_table_artifact(rows, key=f"{key}-inspection-training")
    if record["audit"]:
        page = Path(record["audit"]).resolve().as_uri()
        create_link_artifact(page, key=f"{key}-audit", link_text="Audit record")
    if record["run_page"].startswith("http"):
        create_link_artifact(record["run_page"], key=f"{key}-run", link_text="MLflow run")


def publish_inspection(record: dict[str, Any]) -> None:
    """Show what was said of the images of a folder."""
    told = {**{name: f"{n:,}" for name, n in record["counts"].items()}}
    told |= {"sent for review": f"{record['sent_share']:.1%}", "results": record["results"]}
    told |= {f"the line has changed {i}": text for i, text in enumerate(record["alarms"], 1)}
    rows = [{"what": what, "value": value} for what, value in told.items()]
    create_table_artifact(rows, key=f"{artifact_key(record['source'])}-inspection")


def publish_profile(record: dict[str, Any]) -> None:
    """Show what a table holds and whether it drifted, and link the page."""
    key = artifact_key(record["source"])
    create_markdown_artifact(
        profile_summary(record), key=f"{key}-profile", description="What the table holds"
    )
    create_link_artifact(
        Path(record["page"]).resolve().as_uri(), key=f"{key}-profile-page", link_text="Profile"
    )


def publish_refresh(model: str, record: dict[str, Any]) -> None:
    """Show whether embeddings and head were swapped, and why or why not."""
    create_markdown_artifact(
        refresh_summary(record), key=f"{artifact_key(model)}-refresh", description="Refresh"
    )


def publish_search(name: str, record: dict[str, Any]) -> None:
    """Show the trials of a search, the best first."""
    best = record["best"]
    rows = [
        {
            "trial": str(trial["number"]),
            "state": trial["state"],
            "value": "" if trial["value"] is None else f"{trial['value']:.6g}",
            "steps": max(trial["reports"], key=int, default=""),
            **{key: str(value) for key, value in trial["parameters"].items()},
        }
        for trial in sorted(record["trials"], key=lambda t: best is None or t != best)
    ]
    create_table_artifact(rows, key=f"{artifact_key(name)}-trials", description="Trials")


def artifact_key(name: str) -> str:
    """Return a name as Prefect's keys want it: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def profile_summary(record: dict[str, Any]) -> str:
    """Return the Markdown summary of a profile; of many columns the first and all that drifted."""
    columns = record["columns"]
    drifted = [one for one in columns if one["drift"] == "drifted"]
    rest = [one for one in columns if one["drift"] != "drifted"]
    shown = [*drifted, *rest][:MAX_COLUMNS]
    verdict = f"Drift: **{record['verdict']}**" if record["verdict"] else "No reference"
    lines = [
        f"# {escaped(record['source'])}",
        "",
        f"{record['rows_in']:,} rows, {len(columns):,} columns. {verdict}.",
        "",
        "| column | holds | missing | distinct | drift |",
        "|---|---|---|---|---|",
        *(
            f"| {escaped(one['column'])} | {one['kind']} | {one['missing']:.1%} "
            f"| {one['distinct']:,} | {one['drift'] or '–'} |"
            for one in shown
        ),
    ]
    if len(columns) > len(shown):
        lines.append(f"\n{len(columns) - len(shown):,} more columns on the page.")
    if record["sampled"]:
        lines.append(f"\nLooked at: {record['sampled']}.")
    return "\n".join([*lines, "", f"Page: `{record['page']}`"])


def escaped(text: str) -> str:
    r"""Return a text of the user's without meaning in Markdown, on one line, cut to 80 characters.

    >>> print(escaped("a|b\n<b>"))
    a\|b &lt;b&gt;
    """
    flat = " ".join(text[:80].split())
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", html.escape(flat, quote=False))


def training_summary(record: dict[str, Any]) -> str:
    """Return the Markdown summary of a training run."""
    trained, promotion = record["trained"], record["promotion"]
    figures = trained["metrics"]["test"][trained["active"]]
    low, high = figures["ap_interval"]
    lines = [
        f"# fraud-{record['dataset']}",
        "",
        f"Head **{trained['active']}** ({trained['reason']}).",
        "",
        f"Average precision **{figures['ap']:.3f}** [{low:.3f}, {high:.3f}] over the test folds.",
        "",
    ]
    if promotion:
        verdict = "serves now" if promotion["promoted"] else "does not serve"
        lines += [f"Version {promotion['version']} {verdict}: {promotion['reason']}.", ""]
    lines += [f"Report: `{record['report']}`", "", f"Run: {record['run_page']}"]
    return "\n".join(lines)


def refresh_summary(record: dict[str, Any]) -> str:
    """Return the Markdown summary of a refresh."""
    verdict = "as they were"
    if record["replaced"]:
        swapped = "swapped together"
        verdict = swapped if record["refreshed"] else "replaced by a head that reads no embeddings"
    return (
        f"Embeddings and head: **{verdict}**.\n\n"
        f"Version {record['serving']} serves.\n\n{record['reason']}"
    )


def head_table(record: dict[str, Any]) -> list[dict[str, str]]:
    """Return one row per head."""
    test = record["trained"]["metrics"]["test"]
    return [
        {"head": head} | {c: f"{values[c]:.4f}" for c in COLUMNS if c in values}
        for head, values in test.items()
    ]


def check_table(report: dict[str, Any]) -> list[dict[str, str]]:
    """Return the counts of a check."""
    rows = {name: report[name] for name in ("rows_in", "rows_used", "rows_quarantined")}
    rows |= {f"rule {name}": count for name, count in report["by_rule"].items()}
    return [{"rows": name, "count": f"{count:,}"} for name, count in rows.items()]
