"""Explanation flows on the serving fraud model and on a stranger's: records, pages, MLflow."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from connectors.explain.rule_trial import read_approved, read_edition, trial_path
from connectors.explain.set_files import CONTRACT, read_set
from tasks.explain.rules.approval import NotApprovedError, require_approval
from tasks.explain.rules.engine import run_rules
from tasks.explain.rules.model import DECISIONS, SILENT


@pytest.fixture(scope="module")
def explained(trained, tmp_path_factory):
    from flows.explain_model import explain_model

    bank, _ = trained
    out = tmp_path_factory.mktemp("explained")
    return out, explain_model(str(bank.data), str(out), str(bank.config), days=35, rows=1_500)


def test_the_champion_is_explained_and_its_record_adds_up(trained, explained):
    _, record = trained
    out, made = explained
    found = read_set(out)
    assert found.contract.model.name == "fraud-flowbank"
    assert found.contract.model.digest == record["trained"]["digest"]
    gap = np.abs(found.contract.base + found.values.sum(axis=1) - found.scores).max()
    assert gap <= made["metrics"]["shap/additivity_max"] * (1 + 1e-9) <= 1e-5
    assert made["rows"] == len(found) == 1_500
    assert ((found.decided >= 0) & (found.decided <= 1)).all()
    assert set(found.segments) >= {"amount band"}
    html = (out / "report.html").read_text()
    assert "Drift over weeks" in html
    assert "amount band" in html


def test_the_run_in_mlflow_holds_record_plots_page_and_figures(explained):
    from mlflow import MlflowClient

    _, made = explained
    client = MlflowClient()
    run = client.get_run(made["run"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["shap/additivity_max"] == made["metrics"]["shap/additivity_max"]
    assert run.data.metrics["shap/rows_per_s"] > 0
    assert run.data.tags["model"] == "fraud-flowbank"

    def names(folder):
        return {f.path.rpartition("/")[2] for f in client.list_artifacts(run.info.run_id, folder)}

    assert names("explanation") == {"explanation.parquet", "explanation.json"}
    assert names("plots") >= {"waterfall.png", "beeswarm.png", "bar.png", "heatmap.png",
                              "decision.png"}  # fmt: skip
    assert "report.html" in names(None)


@pytest.mark.long
def test_what_is_explained_already_is_not_explained_again(trained, explained, tmp_path):
    from flows.explain_model import explain_model

    bank, _ = trained
    _, made = explained
    again = explain_model(str(bank.data), str(tmp_path), str(bank.config), days=35, rows=1_500)
    assert again["metrics"] == made["metrics"]
    assert read_set(tmp_path).contract.created == read_set(explained[0]).contract.created


def test_the_highest_scores_of_the_last_day_get_pages_with_reasons(trained, tmp_path):
    from flows.explain_cases import explain_cases

    bank, _ = trained
    made = explain_cases(str(bank.data), str(tmp_path), str(bank.config), worst=2)
    assert len(made["cases"]) == 2
    assert made["cases"][0]["score"] >= made["cases"][1]["score"]
    for case in made["cases"]:
        html = Path(case["page"]).read_text()
        assert "What would have changed the decision" in html
        assert all(r["contribution"] > 0 for r in case["reasons"])
        assert 0 < len(case["reasons"]) <= 4
    key = made["cases"][1]["key"]
    one = explain_cases(str(bank.data), str(tmp_path / "one"), str(bank.config), keys=[key])
    assert one["cases"][0]["reasons"] == made["cases"][1]["reasons"]
    with pytest.raises(ValueError, match="no event 'nobody'"):
        explain_cases(str(bank.data), str(tmp_path), str(bank.config), keys=["nobody"])


def test_rules_are_mined_measured_and_run_in_sql(trained, tmp_path):
    from flows.explain_rules import explain_rules

    bank, _ = trained
    made = explain_rules(str(bank.data), str(tmp_path), str(bank.config), table="t",
                         settings={"max_rules": 5, "min_support": 5})  # fmt: skip
    assert made["metrics"]["rules/fidelity"] > 0.9
    assert made["metrics"]["rules/coverage"] > 0.2  # a set that flags nothing has fidelity, too
    assert made["mined"] > made["measured"] > 0
    assert [Path(f).name for f in made["files"]] == [
        "rules.txt", "rules.json", "rules.sql", "rules.flink.sql",
    ]  # fmt: skip
    rules = json.loads((tmp_path / "rules.json").read_text())
    assert 0 < len(rules["rules"]) <= 5
    with sqlite3.connect(":memory:") as base:
        columns = ", ".join(f'"{name}" DOUBLE' for name in rules["features"])
        base.execute(f"CREATE TABLE t ({columns})")
        ends = {c[2] for rule in rules["rules"] for c in rule["if"]}
        rng = np.random.default_rng(0)
        rows = rng.choice([*ends, *(e + 1 for e in ends), -1.0], (200, len(rules["features"])))
        marks = ", ".join("?" * rows.shape[1])
        base.executemany(f"INSERT INTO t VALUES ({marks})", rows.tolist())
        query = (tmp_path / "rules.sql").read_text()
        found = base.execute(query).fetchall()
    base.close()
    wanted = run_rules(read_edition(tmp_path / "rules.json"), rows).decisions
    names = [None if code == SILENT else DECISIONS[code] for code in wanted]
    assert [row[-2] for row in found] == names


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A stranger's network as TorchScript, with tables."""
    import warnings

    import torch

    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, torch.zeros(2, 4)), folder / "net.pt")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4))
    names = ["amount", "age", "city", "country"]
    columns = dict(zip(names, rows.T, strict=True))
    columns["id"] = [f"r{i}" for i in range(300)]
    columns["when"] = pa.array(np.arange(300) * 7_200_000 + 1_514_764_800_000, pa.timestamp("ms"))
    columns["channel"] = ["web", "shop"] * 150
    columns["outcome"] = (rows[:, 0] > 1).astype(int)
    columns["card"] = [f"c{i % 30}" for i in range(300)]
    parquet.write_table(pa.table(columns), folder / "rows.parquet")
    held = dict(zip(names, rng.normal(size=(30, 4)).T, strict=True))
    parquet.write_table(pa.table(held), folder / "held.parquet")
    (folder / "groups.toml").write_text('place = ["city", "country"]\n')
    return folder


def command(*words):
    from flows.cli.main import run

    return run([str(word) for word in words])


def options(own, *more):
    return ["--model", own / "net.pt", "--background", own / "held.parquet", *more]


def test_a_strangers_model_is_explained_from_the_command_line(
    own, tmp_path, capsys, prefect_server, mlflow_server
):
    words = options(own, "--groups", own / "groups.toml", "--key-column", "id", "--segment",
                    "channel", "--time-column", "when")  # fmt: skip
    out = tmp_path / "out"
    assert command("explain", "model", own / "rows.parquet", *words, "--out", out, "--json",
                   "--review-at", "0.2", "--redraws", "2") == 0  # fmt: skip
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = read_set(out)
    assert found.contract.players.names == ("amount", "age", "place")
    assert found.contract.method == "exact"
    assert made["metrics"]["shap/additivity_max"] <= 1e-6
    assert found.contract.thresholds == {"review": 0.2}
    assert set(found.segments) == {"channel"}
    code = command("explain", "drift", out, "--json")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == (2 if told["alarms"] else 0)
    assert len(told["periods"]) == 4


def test_a_strangers_case_is_explained_from_the_command_line(
    own, tmp_path, capsys, prefect_server, mlflow_server
):
    words = options(own, "--key-column", "id", "--time-column", "when", "--label-column",
                    "outcome", "--entity-column", "card", "--review-at", "-5")  # fmt: skip
    out = tmp_path / "cases"
    assert (
        command("explain", "case", own / "rows.parquet", *words, "--key", "r250", "--out", out) == 0
    )
    said = capsys.readouterr().out
    assert "r250: review at" in said
    html = (out / "case-r250.html").read_text()
    assert "c10" not in html or "Earlier rows of the same card" in html
    assert (out / CONTRACT).is_file()


def test_rules_of_a_strangers_model(own, tmp_path, capsys, prefect_server, mlflow_server):
    words = options(own, "--time-column", "when", "--review-at", "0.0", "--most", "4")
    data = tmp_path / "bare.parquet"
    table = parquet.read_table(own / "rows.parquet")
    parquet.write_table(table, data)
    assert command("explain", "rules", data, *words, "--out", tmp_path / "rules") == 0
    said = capsys.readouterr().out
    assert "they decide as the model does in" in said
    assert (tmp_path / "rules" / "rules.flink.sql").read_text().startswith("SELECT *")

    mined, words = tmp_path / "rules" / "rules.json", [*words[:-2], "--by", "a. person"]
    assert command("explain", "trial", mined, data, *words, "--most-flagged", "1") == 0
    assert "changed 0.0000" in capsys.readouterr().out
    require_approval(read_edition(mined), trial_path(mined).read_text())
    rules, trial = read_approved(mined)
    assert (trial.tried_by, trial.vetoed, trial.rows) == ("a. person", 0.0, 90)
    assert rules.version == "2018-01-18"  # of the newest row mined from
    assert trial.thresholds == {"review": 0.0}
    assert trial.model == rules.model_digest
    edited = tmp_path / "edited.json"
    texts = json.loads(mined.read_text()) | {"version": "2", "rules": []}
    edited.write_text(json.dumps(texts))
    tried = ("explain", "trial", edited, data, *words, "--before", mined)
    assert command(*tried, "--most-flagged", "1", "--most-changed", "0.01") == 2
    assert "is above the limit" in capsys.readouterr().out
    with pytest.raises(NotApprovedError, match="failed its trial"):
        read_approved(edited)
    edited.write_text(mined.read_text().replace("amount", "weight"))
    assert command(*tried) == 1
    assert "'weight' and the model does not" in capsys.readouterr().err


@pytest.mark.long
def test_the_demo_explains_the_champion_and_one_case_within_its_time(trained, tmp_path):
    import time

    from flows.cli.console import open_console
    from flows.cli.demo_explain import explain_champion

    bank, record = trained
    report = tmp_path / "report.html"
    report.write_text(Path(record["report"]).read_text())
    began, cpu = time.perf_counter(), time.process_time()
    lines = explain_champion(
        open_console(), bank.data, report, tmp_path / "explained", str(bank.config)
    )
    spent = time.process_time() - cpu
    assert spent < 20, (spent, time.perf_counter() - began)
    html = report.read_text()
    assert 'id="explained"' in html
    assert 'href="#explained"' in html
    case = next((tmp_path / "explained" / "case").glob("case-*.html"))
    assert f"explained/case/{case.name}" in html
    assert case.name in lines[0]
    assert (tmp_path / "explained" / "model" / "report.html").is_file()
