"""Inspection bundles: written whole or not at all, opened only when they are what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from kernels.bundle.folder import BundleError
from tasks.defects.bundle.bundle import DefectBundle, write_bundle
from tasks.defects.bundle.parts import digest_of, example_of
from tests.tasks.defects.bright import box_detector, parts, plate, promised


@pytest.fixture(scope="module")
def made():
    return parts(learnt=[plate(1)])


@pytest.fixture
def bundle(made, tmp_path):
    return write_bundle(tmp_path / "bundle", made)


def test_a_bundle_judges_as_it_did(bundle, made):
    opened = DefectBundle.load(bundle.folder, digest=bundle.digest)
    assert opened.self_check() <= 1e-6
    images, scores = opened.example()
    assert scores[1] > 200 / 255 - 1e-6
    assert np.all(scores[::2] < 100 / 255)
    assert opened.thresholds == promised().thresholds
    assert opened.promise["promise"]["max_escape"] == 0.1
    assert opened.images["digest"].to_list() == [digest_of(plate(1))]
    assert [opened.session().judge(image).verdict for image in images] == ["OK", "NG"] * 2
    assert opened.read("detector.safetensors") == made.detector


@pytest.fixture(scope="module")
def boxes():
    return box_detector()


def test_a_detector_of_boxes_comes_back_as_it_went(made, boxes, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", replace(made, boxes=boxes.to_bytes()))
    assert bundle.box_files == ("boxes.safetensors", "boxes.json", "boxes-types.npz")
    images = [plate(i, 230) for i in range(3)]
    found = bundle.boxes().judge(images)
    assert found == boxes.judge(images)
    assert any(found)
    assert bundle.self_check() <= 1e-6


def test_a_bundle_of_before_has_no_detector_of_boxes(bundle):
    assert bundle.box_files == ()
    assert bundle.boxes() is None


@pytest.mark.parametrize("name", ["boxes.safetensors", "boxes.json", "boxes-types.npz"])
def test_a_detector_of_boxes_that_was_altered_is_refused(made, boxes, tmp_path, name):
    folder = write_bundle(tmp_path / "bundle", replace(made, boxes=boxes.to_bytes())).folder
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name}: contents differ from the manifest"):
        DefectBundle.load(folder)


def test_files_that_are_no_detector_of_boxes_are_not_written(made, boxes, tmp_path):
    files = boxes.to_bytes()
    for wrong, says in (
        ({"boxes.json": files["boxes.json"]}, "needs boxes.safetensors"),
        (files | {"boxes.json": b"{}"}, "not the files of a detector of boxes"),
    ):
        with pytest.raises(BundleError, match=says):
            write_bundle(tmp_path / "bundle", replace(made, boxes=wrong))
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(BundleError, match=r"edge\.onnx is no file of a detector of boxes"):
        replace(made, boxes=files | {"edge.onnx": b""})


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("edge.onnx", lambda data: data[:-1] + b"x", "contents differ from the manifest"),
        ("detector.json", lambda data: data + b" ", "the manifest says"),
        ("thresholds.json", None, "thresholds.json is missing"),
    ],
)
def test_a_bundle_that_was_altered_is_refused(bundle, name, change, says):
    path = bundle.folder / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BundleError, match=says):
        DefectBundle.load(bundle.folder)


def test_a_bundle_of_another_kind_or_digest_is_refused(bundle):
    with pytest.raises(BundleError, match="not the manifest that was registered"):
        DefectBundle.load(bundle.folder, digest="1" * 64)
    manifest = bundle.folder / "manifest.json"
    data = json.loads(manifest.read_text())
    del data["kind"]
    manifest.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="of kind 'fraud', not 'inspection'"):
        DefectBundle.load(bundle.folder)


def test_what_cannot_be_opened_is_not_written(made, tmp_path):
    with pytest.raises(ValueError, match="no ONNX file"):
        write_bundle(tmp_path / "bundle", replace(made, edge=b"no model"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BundleError, match=r"line name '\.\./x'"):
        replace(made, dataset="../x")
    spare = made.images.with_columns(role=pl.lit("spare"))
    with pytest.raises(BundleError, match="role 'spare'"):
        replace(made, images=spare)


def test_an_example_takes_images_of_the_commonest_size():
    images = [plate(0, side=16), *(plate(i) for i in range(6)), plate(9, side=24)]
    assert example_of(images).shape == (4, 32, 32, 3)
    with pytest.raises(BundleError, match="at least one image"):
        example_of([])
    colour = np.repeat(plate(3)[:, :, None], 3, axis=2)
    assert digest_of(colour) == digest_of(plate(3))
