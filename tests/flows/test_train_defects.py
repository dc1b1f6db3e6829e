"""The inspection flows: a folder made a serving model, again from where it was, and used."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

SETTINGS = {
    "detect": {"steps": 2, "fold_steps": 1, "piece": 32, "memory": 64, "projected": 16, "folds": 2},
    "plan": {"calibration": 0.4, "test": 0.25},
    "edge": {"calibration": 8, "qdq": {"rules": ["99.99"], "most_float": 0}},
    "boxes": {"least": 6, "detector": {"steps": 2, "batch": 2, "piece": 32, "told": 0.0}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generated line as a folder, with one file that is no image."""
    from connectors.defects.dataset_files import write_dataset
    from tasks.defects.textures.line import LineConfig, make_line

    place = tmp_path_factory.mktemp("line") / "plates"
    types = {"scratch": 8, "stain": 8}
    line = make_line(LineConfig(texture="stripes", ok=24, ng=types, shape=(64, 64), seed=3))
    write_dataset(line, place)
    (place / "normal" / "0000.png").write_bytes(b"no image")
    return place


@pytest.fixture(scope="module")
def trained(folder, prefect_server, mlflow_server):
    """The flow, run once."""
    from flows.train_defects import train_defects

    return train_defects(str(folder), "plates", SETTINGS)


def test_a_folder_becomes_a_serving_model_with_a_record(trained):
    from connectors.defects.models import inspection_registry
    from tasks.defects.bundle.bundle import DefectBundle

    fitted, finished = trained["fitted"], trained["finished"]
    assert fitted["quarantined"] == 1
    assert fitted["rows_in"] == 40
    assert sum(fitted["roles"].values()) == 39
    bundle = DefectBundle.load(Path(trained["bundle"]))
    assert bundle.digest == finished["digest"]
    assert set(bundle.images["role"]) == {"train", "calibration", "test"}
    straddling = bundle.images.group_by("part").agg(pl.col("role").n_unique())
    assert straddling["role"].max() == 1
    assert finished["figures"]["test"]["auroc"] > 0.6
    assert any("good parts" in text for text in finished["thresholds"]["in_words"])
    # The promise is the edge file's; the float detector's thresholds stand beside.
    assert bundle.session().facts.thresholds == bundle.thresholds
    floats = json.loads(bundle.read("detector.json"))["thresholds"]
    assert list(bundle.promise["float_detector"].values()) == floats
    judged = pl.read_csv(Path(trained["audit"]).parent / "judged.csv")
    limits = bundle.thresholds
    assert [limits.verdict(score) for score in judged["score"]] == judged["verdict"].to_list()
    page = Path(trained["audit"]).read_text(encoding="utf-8")
    assert "edge file, which runs on the line" in page
    assert bundle.digest in page
    assert "data:image/png" in page
    if trained["promotion"]["promoted"]:
        version, serving = inspection_registry().champion("plates", Path(trained["bundle"]).parent)
        assert (version.run_id, serving.digest) == (trained["run_id"], bundle.digest)


def test_the_run_s_page_has_figures_and_files(trained):
    import mlflow

    client = mlflow.MlflowClient()
    run = client.get_run(trained["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test.auroc"] == trained["finished"]["figures"]["test"]["auroc"]
    assert run.data.tags["promotion"] == trained["promotion"]["reason"]
    names = {file.path for file in client.list_artifacts(trained["run_id"])}
    assert {"audit.html", "judged.csv", "roles.csv", "quarantine.parquet", "parity.json"} <= names
    figures = {file.path for file in client.list_artifacts(trained["run_id"], "figures")}
    assert figures == {f"figures/{n}.svg" for n in ("roc", "det", "cost", "verdicts", "types")}
    pictures = {file.path for file in client.list_artifacts(trained["run_id"], "pictures")}
    assert {"pictures/surest-finds.png", "pictures/typical-good.png"} <= pictures
    losses = client.get_metric_history(trained["run_id"], "loss")
    assert [one.step for one in losses] == [0, 1]
    assert run.data.metrics["ok_below"] == float(trained["finished"]["thresholds"]["ok_below"])
    assert float(run.data.params["thresholds.ok_below"]) == run.data.metrics["ok_below"]
    assert "good parts" in run.data.params["thresholds.in_words"]


def test_types_are_learned_judged_and_named_by_the_bundle(trained, folder):
    from PIL import Image

    from connectors.defects.inspect.inspector import open_inspector
    from tasks.defects.bundle.bundle import DefectBundle

    types, bundle = trained["finished"]["types"], DefectBundle.load(Path(trained["bundle"]))
    assert json.loads(bundle.read("types.json")) == types
    assert types["parts"] == sum(one["parts"] for one in types["by_type"])
    assert {one["name"] for one in types["by_type"]} == {"scratch", "stain"}
    assert set(types["floors"]) == {"always the commonest type", "prototypes of the edge file"}
    trained_on = set(bundle.images.filter(pl.col("role") == "train")["image"])
    assert set(bundle.types().classifier.names) <= trained_on
    judged = pl.read_csv(Path(trained["bundle"]).parent / "judged.csv")
    row = judged.filter(pl.col("label") == "ng").row(0, named=True)
    assert set(row["like"].split("; ")) <= trained_on
    pixels = np.asarray(Image.open(folder / row["image"]))
    alone, whole = (open_inspector(Path(trained["bundle"]) / name) for name in ("edge.onnx", ""))
    assert alone.digest != whole.digest
    said, named = alone.judge(pixels), whole.judge(pixels)
    assert (said.score, said.verdict) == (named.score, named.verdict)
    if named.verdict != "OK":
        assert len(named.like) == 3
        assert set(named.kinds) == {"scratch", "stain", "unknown"}
        assert types["decides"] or named.kinds == said.kinds


def test_boxes_are_learned_measured_and_drawn_by_the_bundle(trained, folder):
    import mlflow
    from PIL import Image

    from connectors.defects.inspect.inspector import open_inspector
    from tasks.defects.bundle.bundle import DefectBundle

    facts, bundle = trained["finished"]["boxes"], DefectBundle.load(Path(trained["bundle"]))
    detector = bundle.boxes()
    assert detector.scorer.shape.kinds == ("scratch", "stain")
    roles = bundle.images.filter(pl.col("image").str.contains("scratch|stain"))["role"]
    # Learned from all masks but those of the test, which the figures are of.
    assert detector.provenance["images"] >= len(roles) - (roles == "test").sum()
    assert facts["images"] == (roles == "test").sum() > 0
    assert facts["good"] > 0
    assert 0 <= facts["low"] <= facts["map50"] <= facts["high"] <= 1
    assert bundle.metrics["boxes"] == facts
    assert f"on {facts['images']} images held out" in bundle.read("MODEL_CARD.md").decode()
    run = mlflow.MlflowClient().get_run(trained["run_id"])
    assert run.data.metrics["boxes.map50"] == facts["map50"]
    assert run.data.metrics["boxes.images"] == facts["images"]
    page = Path(trained["audit"]).read_text(encoding="utf-8")
    assert f"on {facts['images']} images with {facts['boxes']} boxes" in page
    judged = pl.read_csv(Path(trained["bundle"]).parent / "judged.csv")
    name = judged.filter(pl.col("verdict") != "OK")["image"][0]
    pixels = np.asarray(Image.open(folder / name))
    said = open_inspector(Path(trained["bundle"])).judge(pixels)
    found = [box.left for box in detector.judge([pixels])[0]]
    assert [box.left for box in said.boxes][: len(found)] == found != []


def test_boxes_are_left_out_or_refused_where_nothing_carries_them(tmp_path):
    from connectors.defects.box_training import fit_boxes_of_folder, read_boxes
    from connectors.defects.dataset_files import write_dataset
    from connectors.defects.steps import config_of
    from tasks.defects.detect.config import DetectError
    from tasks.defects.textures.line import LineConfig, make_line

    line = make_line(LineConfig(ok=4, ng={"scratch": 3}, shape=(32, 32)))
    write_dataset([replace(one, mask=None, boxes=()) for one in line], tmp_path / "bare")

    def fitted(**boxes):
        return fit_boxes_of_folder(tmp_path / "bare", tmp_path, config_of({"boxes": boxes}))

    assert fitted(fit=False) == {"fitted": False, "reason": ""}
    why = "0 of the images to learn from have boxes or masks; label 20 more"
    assert fitted() == {"fitted": False, "reason": why}
    assert read_boxes(tmp_path) is None
    with pytest.raises(DetectError, match="no detector of boxes: 0 of the images to learn from"):
        fitted(fit=True)


def test_the_command_tells_what_came_of_it(trained):
    from rich.console import Console

    from flows.cli.defects_train import show_training

    console = Console(file=io.StringIO(), width=400)
    show_training(console, trained)
    said = console.file.getvalue()
    types = trained["finished"]["types"]
    assert f"types: {types['right']} of {types['parts']} parts held out are named right" in said
    assert "by always the commonest type" in said
    assert "defects inspect IMAGES --model" in said
    assert trained["finished"]["thresholds"]["in_words"][0] in said
    assert "boxes: mAP50 " in said
    assert "left aside" not in said
    some = {"reason": "", "provenance": {"left_aside": 4}}
    show_training(console, trained | {"boxes": some})
    assert "; 4 images left aside, whose boxes lack a type" in console.file.getvalue()
    few = trained | {"boxes": {"reason": "3 have boxes"}}
    show_training(console, few | {"finished": trained["finished"] | {"boxes": {}}})
    assert "boxes: contours of the heat map (3 have boxes)" in console.file.getvalue()


def test_the_same_folder_again_is_not_trained_again(trained, folder):
    from flows.train_defects import train_defects

    again = train_defects(str(folder), "plates", SETTINGS)
    assert again["finished"] == trained["finished"]
    assert again["fitted"] == trained["fitted"]
    assert again["seconds"] < trained["seconds"] / 3


def test_a_folder_is_inspected_once_by_the_model(trained, folder, tmp_path):
    from flows.inspect_batch import inspect_batch

    camera, out = tmp_path / "camera", tmp_path / "out"
    judged = pl.read_csv(Path(trained["bundle"]).parent / "judged.csv")
    for name in [*judged["image"], "normal/0000.png"]:
        (camera / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, camera / name)
    record = inspect_batch(str(camera), trained["bundle"], str(out))
    counts = Counter(record["counts"])
    assert counts["QUARANTINED"] == 1
    assert record["alarms"] == []
    assert counts["OK"] + counts["NG"] + counts["REVIEW"] == len(judged)
    rows = [json.loads(row) for row in Path(record["results"]).read_text().splitlines()]
    verdicts = {row["image"]: row["edge"]["verdict"] for row in rows if row["edge"]}
    wanted = judged.select("image", "verdict").iter_rows()
    same = [verdicts[name] == verdict for name, verdict in wanted]
    assert sum(same) >= 0.8 * len(same)  # int8 on the edge, float in training
    again = inspect_batch(str(camera), trained["bundle"], str(out))
    assert not set(again["counts"]) & {"OK", "NG", "REVIEW", "QUARANTINED"}
    assert len(Path(again["results"]).read_text().splitlines()) == len(rows)


def test_costs_are_three_numbers_and_told_in_the_record(trained):
    import typer

    from connectors.defects.steps import OF_FIT, config_of
    from flows.cli.defects_train import costs_of

    costs = {"costs": costs_of("500,5,1") | {"prevalence": 0.02}}
    told = config_of(costs).costs.words()
    assert told.startswith("500 for an escape, 5 for a false reject, 1 for a review, with 0.02")
    assert "100 for an escape" in Path(trained["audit"]).read_text(encoding="utf-8")
    assert not set(costs) & set(OF_FIT)  # a change of them fits nothing anew
    for text in ("1,2", "a,b,c", ""):
        with pytest.raises(typer.BadParameter, match="three numbers"):
            costs_of(text)


def test_settings_that_do_not_exist_are_refused_at_once(folder, prefect_server):
    from flows.train_defects import train_defects

    for settings, says in (
        ({"detekt": {}}, "unknown settings detekt"),
        ({"detect": {"stepps": 3}}, "stepps"),
        ({"promise": {"max_escape": 2}}, "max_escape"),
        ({"types": {"self_training": {"turns": 3}}}, "turns"),
        ({"costs": {"escape": -1}}, "costs"),
        ({"boxes": {"least": 0}}, "at least 1 image with boxes"),
        ({"boxes": {"detector": {"told": 2}}}, "told 2"),
    ):
        with pytest.raises(ValueError, match=says):
            train_defects(str(folder), "plates", settings, promote=False)
