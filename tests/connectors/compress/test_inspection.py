"""A small detector on a folder of images: pruned, planned, compressed, written as a bundle."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from connectors.compress.inspection import InspectionSubject, beyond_promise, read_subject
from connectors.compress.job import (
    BUNDLE,
    LAYERS,
    OUTCOME,
    PAGE,
    PICTURE,
    PLAN,
    compress_job,
    subject_of,
)
from connectors.defects.dataset_files import write_dataset
from connectors.defects.training import BUNDLE as TRAINED
from connectors.defects.training import Origin, finish_folder, fit_folder
from kernels.compression.pruning.errors import PruningError
from kernels.compression.qdq import QdqConfig
from models.defect_net import DefectNet, DefectNetShape
from tasks.compress.device import CompressError
from tasks.compress.footprint import TimingConfig
from tasks.compress.recipe import Recipe
from tasks.defects.bundle.bundle import DefectBundle
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import tensor_of
from tasks.defects.detect.fit import fit
from tasks.defects.edge.build import EdgeConfig, export_float, weights_digest
from tasks.defects.edge.pruned import PruneConfig, pruned
from tasks.defects.edge.trim import TrimmedScorer, trimmed
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.thresholds import Promise, Promised
from tasks.defects.samples import Sample
from tasks.defects.textures.line import LineConfig, make_line
from tasks.defects.training import TrainingConfig

SMALL = DefectNetShape(stem=8, widths=(16, 24, 32), blocks=(1, 1, 1), dense=16)
EDGE = EdgeConfig(qdq=QdqConfig(rules=("min-max",), most_float=0, float_start=1), calibration=8)
QUICK = PruneConfig(share=0.3, steps=4, rounds=2, batch=2, piece=32)


@pytest.fixture(scope="module", autouse=True)
def exported_once():
    """Equal weights give equal files: what one export takes is not spent again on the same net.

    The float net is exported for its bundle, for the sketches and for the trial without pruning.
    """
    kept: dict[str, bytes] = {}

    def export(scorer):
        digest = weights_digest(scorer)
        if digest not in kept:
            kept[digest] = export_float(scorer)
        return kept[digest]

    with pytest.MonkeyPatch.context() as patch:
        for place in ("tasks.defects.edge.build", "connectors.compress.inspection"):
            patch.setattr(f"{place}.export_float", export)
        yield kept


@pytest.fixture(scope="module")
def line():
    kinds = {"scratch": 24, "pit": 24}
    return make_line(LineConfig(texture="brushed", shape=(48, 48), ok=60, ng=kinds, seed=3))


@pytest.fixture(scope="module")
def taught(line):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = DetectConfig(steps=6, fold_steps=1, memory=32, projected=8, piece=32, batch=2)
    return fit(line, config, DefectNet(SMALL).eval()).scorer


class TestPruned:
    def test_channels_go_and_what_is_asked_stays(self, taught, line):
        images = [sample.pixels for sample in line]
        before = {name: value.clone() for name, value in taught.state_dict().items()}
        small = pruned(taught, images, QUICK)
        assert isinstance(small, TrimmedScorer)
        whole = sum(p.numel() for p in trimmed(taught).whole.net.parameters())
        assert sum(p.numel() for p in small.whole.net.parameters()) < 0.8 * whole
        x = torch.rand(2, 3, 48, 48)
        with torch.inference_mode():
            ours, theirs = small(x), trimmed(taught)(x)
        assert ours.heat.shape == theirs.heat.shape
        assert ours.kinds.shape == theirs.kinds.shape
        assert all(torch.equal(before[name], value) for name, value in taught.state_dict().items())

    def test_training_brings_the_answers_back(self, taught, line):
        images = [sample.pixels for sample in line]
        x = torch.stack([tensor_of(sample.pixels) for sample in line[::10]])
        wanted = trimmed(taught).whole.net(x).dense.detach()
        spread = wanted.var(dim=(0, 2, 3), keepdim=True) + 1e-4

        def apart(steps):
            config = PruneConfig(share=0.6, steps=steps, rounds=1, batch=4, piece=48, rate=3e-3)
            dense = pruned(taught, images, config).whole.net(x).dense.detach()
            return float(((dense - wanted).square() / spread).mean())

        assert apart(100) < 0.85 * apart(0)

    def test_a_detector_that_judges_by_memory_keeps_its_channels(self, line):
        torch.manual_seed(0)
        config = DetectConfig(steps=0, memory=32, projected=8, folds=2, piece=32)
        scorer = fit(line, config, DefectNet(SMALL).eval()).scorer
        with pytest.raises(PruningError, match="train the detector on its line first"):
            pruned(scorer, [sample.pixels for sample in line], QUICK)

    def test_images_are_needed(self, taught):
        with pytest.raises(PruningError, match="no images"):
            pruned(taught, [], QUICK)

    @pytest.mark.parametrize(
        "wrong", [{"share": 0.0}, {"share": 1.0}, {"rounds": 0}, {"steps": -1}, {"piece": 40}]
    )
    def test_settings_are_checked(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PruneConfig(**{"share": 0.3} | wrong)


@pytest.fixture(scope="module")
def folder(line, tmp_path_factory):
    place = tmp_path_factory.mktemp("line")
    write_dataset(line, place)
    return place


@pytest.fixture(scope="module")
def bundle(folder, tmp_path_factory):
    """A bundle trained for a few steps with a small net."""
    place = tmp_path_factory.mktemp("trained")
    config = TrainingConfig(
        detect=DetectConfig(steps=30, fold_steps=2, memory=32, projected=8, piece=32, batch=4),
        edge=EDGE,
    )
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.defects.weights.load_net", lambda *_: DefectNet(SMALL).eval())
        patch.setattr("tasks.defects.weights.load_mask_head", lambda *_: nn.Conv2d(16, 1, 1))
        fitted, draft = place / "fitted", place / "draft"
        for one in (fitted, draft):
            one.mkdir()
        fit_folder(folder, fitted, config)
        finish_folder(folder, fitted, draft, config, Origin("small", "unknown"))
    return draft / TRAINED


@pytest.fixture(scope="module")
def subject(bundle, folder):
    found = read_subject(bundle, folder)
    return InspectionSubject(found.bundle, found.samples, QUICK, EDGE)


@pytest.mark.long
def test_the_parts_keep_their_roles(subject, bundle):
    roles = dict(DefectBundle.load(bundle).images.select("image", "role").iter_rows())
    for role, samples in subject.samples.items():
        assert samples
        assert all(roles[sample.name] == role for sample in samples)


@pytest.mark.long
def test_altered_and_missing_images_are_refused(bundle, line, tmp_path):
    other = [Sample(s.name, 255 - s.pixels, s.label, s.kind) for s in line]
    write_dataset(other, tmp_path / "other")
    with pytest.raises(CompressError, match="is not the image"):
        read_subject(bundle, tmp_path / "other")
    write_dataset(line[:80], tmp_path / "less")
    with pytest.raises(CompressError, match="is missing"):
        read_subject(bundle, tmp_path / "less")


@pytest.mark.long
def test_a_job_leaves_a_bundle_whose_edge_file_is_the_compressed_one(
    bundle, folder, tmp_path, subject, monkeypatch
):
    monkeypatch.setattr("connectors.compress.job.subject_of", lambda *_: subject)
    monkeypatch.setattr(
        "tasks.compress.footprint.TimingConfig", lambda: TimingConfig(rounds=2, burst=2, rest=0)
    )
    monkeypatch.setattr("tasks.compress.recipe.PRUNED", (0.0, 0.3))
    budget = {"smaller": 1.5, "loss": 0.5}
    said: list[str] = []
    record = compress_job(
        tmp_path, model=bundle, data=folder, device="box-2gb", budget=budget, minutes=5,
        options=None, say=said.append,
    )  # fmt: skip
    done = record["outcome"]
    assert json.loads((tmp_path / OUTCOME).read_text()) == done
    assert json.loads((tmp_path / PLAN).read_text()) == record["plan"]
    assert done["taken"] in (tmp_path / PAGE).read_text()
    assert ".dot.taken" in (tmp_path / PICTURE).read_text()
    assert (tmp_path / LAYERS).read_text().count('class="bits8"') == len(done["layers"]) > 10
    taken = next(one for one in done["trials"] if one["taken"])
    made = DefectBundle.load(tmp_path / BUNDLE)
    made.self_check()
    assert made.read("edge.onnx") == (tmp_path / "model.onnx").read_bytes()
    assert made.read("detector.safetensors") == DefectBundle.load(bundle).read(
        "detector.safetensors"
    )
    assert made.metrics["compression"]["loss"] == taken["loss"]
    assert "## Compression" in made.read("MODEL_CARD.md").decode()
    assert any("pruned" in one["name"] for one in done["trials"])
    assert any(one.startswith("making") for one in said)


@pytest.mark.long
def test_weights_that_both_looks_read_go_to_4_bits(subject):
    recipe = Recipe(0.0, "int8+int4")
    eight = subject.make(Recipe(0.0, "int8"), lambda _: None)
    four = subject.make(recipe, lambda _: None)
    held = onnx.load_model_from_string(four.model).graph.initializer
    narrow = [tensor for tensor in held if tensor.data_type == onnx.TensorProto.INT4]
    assert 0 < len(narrow) < len(four.facts["four_bits"]["nodes"])
    assert max(len(four.model), len(subject.sketch(recipe))) < len(eight.model)
    assert abs(subject.lost(four).loss) < 0.1


def test_wrong_decisions_above_the_promised_share_are_counted():
    test = [Sample(f"{i}.png", np.zeros((8, 8), np.uint8), "ng" if i < 10 else "ok", "pit" if i < 10
                   else "") for i in range(30)]  # fmt: skip
    scores = np.array([0.1] * 3 + [0.9] * 7 + [0.9] * 5 + [0.1] * 15)
    limits = Promised(Thresholds(0.5, 0.5), Promise(0.1, 0.2), (), crossed=True)
    assert beyond_promise(test, scores, limits) == (3 - 1) + (5 - 4)
    assert not beyond_promise(test, scores, Promised(limits.thresholds, Promise(0.3, 0.25), (),
                                                     crossed=True))  # fmt: skip


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(CompressError, match="inspection bundle"):
        subject_of(tmp_path / "model.pt", tmp_path)


@pytest.mark.long
def test_dynamic_ranges_are_not_offered(subject):
    assert subject.can()["dynamic"]
    assert not subject.can()["prune"]
    assert Recipe(0.3, "int8").methods
