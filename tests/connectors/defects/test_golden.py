"""Golden samples from a folder to the line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from connectors.defects.golden import GoldenConfig, make_golden, open_golden
from connectors.defects.inspect.inspector import open_inspector
from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.run import RunConfig, inspect_folder
from connectors.defects.options import DatasetError
from flows.cli.defects import app
from kernels.bundle.folder import BundleError
from tasks.defects.promise.thresholds import TooFewPartsError
from tasks.defects.textures.line import LineConfig, make_line
from tests.connectors.defects.lines import PLAIN

LINE = LineConfig(
    texture="print", shape=(96, 112), ok=24, ng={"missing": 9}, strength=(5.0, 7.0), seed=100
)


@pytest.fixture(scope="module")
def samples():
    return make_line(LINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, samples):
    """The first 18 good and 6 defective parts of a print."""
    root = tmp_path_factory.mktemp("prints") / "labels"
    for sample in [*samples[:18], *samples[24:30]]:
        place = root / ("missing" if sample.kind else "good") / sample.name.split("/")[1]
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.pixels).save(place)
    return root


@pytest.fixture(scope="module")
def golden(folder, tmp_path_factory):
    """The folder of a golden sample, and the record."""
    out = tmp_path_factory.mktemp("golden") / "labels.golden"
    return out, make_golden(folder, out)


def test_other_images_set_the_thresholds(golden):
    out, record = golden
    assert len(record.goldens) == 5
    assert record.judged == {"ok": 13, "ng": 6}
    assert record.figures["auroc"] > 0.9
    detector, digest = open_golden(out)
    assert detector.thresholds == record.promised.thresholds
    assert detector.provenance["golden_images"] == list(record.goldens)
    assert open_inspector(out).digest == digest


def test_the_line_compares_new_parts_and_leaves_other_products_to_people(golden, samples, tmp_path):
    out, _ = golden
    camera = tmp_path / "camera"
    camera.mkdir()
    for sample in [*samples[18:24], *samples[30:]]:
        Image.fromarray(sample.pixels).save(camera / sample.name.replace("/", "-"))
    other = np.random.default_rng(0).integers(0, 255, (96, 112)).astype(np.uint8)
    Image.fromarray(other).save(camera / "other.png")
    run = tmp_path / "run"
    inspect_folder(camera, run, open_inspector(out), RunConfig(), decoder=PLAIN)
    with Journal(run / "line.db") as journal:
        said = {row["name"]: row["edge"] for row in journal.rows()}
    assert said.pop("other.png")["verdict"] == "REVIEW"
    scores = {good: [] for good in (True, False)}
    for name, edge in said.items():
        scores[name.startswith("normal")].append(edge["score"])
        if name.startswith("missing") and edge["verdict"] == "NG":
            assert edge["boxes"]
    assert np.median(scores[False]) > max(scores[True])


@pytest.mark.long
def test_named_goldens_a_promise_too_large_and_names_that_are_none(folder, tmp_path):
    with pytest.raises(DatasetError, match="no good image of the folder"):
        make_golden(folder, tmp_path / "a", GoldenConfig(goldens=("missing/0000.png",)))
    found = CliRunner().invoke(
        app, ["golden", str(folder), "--max-escape", "0.05", "--out", str(tmp_path / "b")]
    )
    assert isinstance(found.exception, TooFewPartsError)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least 1 golden"):
        GoldenConfig(count=0)


def test_a_changed_golden_sample_is_refused(golden, tmp_path):
    import shutil

    out, _ = golden
    copied = tmp_path / "copied"
    shutil.copytree(out, copied)
    facts = json.loads((copied / "template.json").read_text())
    facts["thresholds"] = [1e9, 1e9]
    (copied / "template.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError):
        open_inspector(copied)


def test_the_command_says_what_to_do_next(folder, tmp_path):
    out = tmp_path / "labels.golden"
    named = "good/0000.png"
    found = CliRunner().invoke(app, ["golden", str(folder), "--image", named, "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert f"1 golden images, {named} the first" in found.output
    assert "--model" in found.output
    assert open_golden(out)[0].thresholds is not None
