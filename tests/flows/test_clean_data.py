"""The flow that cleans a table: its profile and drift stand among the run's artifacts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_incoming_table_is_profiled_beside_the_run(prefect_server, tmp_path):
    from prefect.artifacts import Artifact

    from flows.clean_data import clean_data

    for name, shift in (("march", 0), ("april", 4)):
        rows = [f"{i},{5 + (i * 7) % 4 + shift} kg" for i in range(150)]
        (tmp_path / f"{name}.csv").write_text("id,weight\n" + "\n".join(rows) + "\n")
    record = clean_data(
        str(tmp_path / "april.csv"), kind="csv", reference=str(tmp_path / "march.csv")
    )
    assert record["counts"]["rows_in"] == 150
    assert record["profile"]["verdict"] == "drifted"
    page = Path(record["profile"]["page"])
    assert page == tmp_path / "april.csv.profile" / "profile.html"
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(page.with_suffix(".json").read_text())["drift"]["verdict"] == "drifted"
    summary = Artifact.get("april-csv-profile")
    assert "Drift: **drifted**" in summary.data
    assert "| weight | decimal | 0.0% | 4 | drifted |" in summary.data
    assert page.resolve().as_uri() in Artifact.get("april-csv-profile-page").data
