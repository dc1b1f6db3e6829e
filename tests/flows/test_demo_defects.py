"""The demo's line of cast parts: a folder as people have it, a model, verdicts, a page."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from connectors.defects.folders import load_dataset
from flows.cli import demo_defects
from flows.cli.console import open_console


@pytest.fixture
def small(monkeypatch):
    """A smaller line, and no training of the net."""
    monkeypatch.setattr(demo_defects, "OK", 30)
    monkeypatch.setattr(demo_defects, "NG", {"pit": 13, "stain": 13})
    monkeypatch.setattr(demo_defects, "NEW_OK", 6)
    monkeypatch.setattr(demo_defects, "NEW_NG", 2)
    detect = {"steps": 0, "memory": 64, "projected": 16, "folds": 2}
    settings = {"detect": detect, "promise": {"max_escape": 0.2}, "edge": {"int8": False}}
    settings["boxes"] = {"fit": False}
    monkeypatch.setattr(demo_defects, "SETTINGS", settings)


@pytest.mark.usefixtures("small")
def test_the_line_is_a_folder_as_people_have_it_and_new_parts_of_the_same(tmp_path):
    parts, new, labels = demo_defects.write_line(tmp_path, 0)
    dataset = load_dataset(parts)
    assert not (parts / "index.csv").exists()
    assert Counter(dataset.frame["kind"]) == {"": 30, "pit": 13, "stain": 13}
    assert dataset.quarantine.num_rows == 0
    assert all(sample.mask.any() for sample in dataset.samples if sample.label == "ng")
    seen = load_dataset(new)
    assert set(seen.frame["label"]) == {None}
    told = {row["image"]: row["label"] for row in csv.DictReader(labels.open())}
    assert told.keys() == set(seen.frame["name"])
    assert Counter(told.values()) == {"ok": 6, "ng": 4}
    assert list(told.values()) != sorted(told.values(), reverse=True)
    known = {sample.pixels.tobytes() for sample in dataset.samples}
    assert not any(sample.pixels.tobytes() in known for sample in seen.samples)
    for each in (dataset, seen):
        each.close()
    before = labels.stat().st_mtime_ns
    assert demo_defects.write_line(tmp_path, 0) == (parts, new, labels)
    assert labels.stat().st_mtime_ns == before
    labels.unlink()  # as if it had been killed before it was done
    demo_defects.write_line(tmp_path, 0)
    assert {row["image"]: row["label"] for row in csv.DictReader(labels.open())} == told


@pytest.mark.long
@pytest.mark.usefixtures("small", "prefect_server", "mlflow_server")
def test_the_line_is_trained_promised_and_inspected(tmp_path, capsys):
    lines = demo_defects.inspect_line(open_console(), tmp_path, 1)
    page = (tmp_path / "model.html").read_text(encoding="utf-8")
    assert "data:image/png" in page
    told = capsys.readouterr().out
    assert "10 images in, " in told
    assert "edge alone: missed " in told
    pictures = list((tmp_path / "verdicts" / "pictures").rglob("*.png"))
    assert len(pictures) >= 10
    assert [line.split()[0] for line in lines] == ["line", "verdicts"]


def test_settings_carry_the_promise():
    from tasks.defects.plan import PlanConfig
    from tasks.defects.promise.bounds import needed

    escape = demo_defects.SETTINGS["promise"]["max_escape"]
    assert sum(demo_defects.NG.values()) == 50
    assert needed(escape, 0.95) + PlanConfig().least <= 50
    assert np.isfinite(demo_defects.SETTINGS["detect"]["steps"])
    assert demo_defects.SETTINGS["boxes"] == {"fit": False}  # the demo has a minute
