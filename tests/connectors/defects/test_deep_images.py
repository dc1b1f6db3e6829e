"""A 12-bit camera: training, line, central machine and labelling page see the same eight bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from connectors.defects.folders import load_dataset
from connectors.defects.inspect.central.load import load_central
from connectors.defects.inspect.inspector import open_inspector
from connectors.defects.inspect.run import RunConfig, inspect_folder
from infra.errors import ConfigurationError
from tasks.defects.edge.build import EdgeConfig, build_edge
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import eight_bits
from tests.connectors.defects.lines import PLAIN
from tests.tasks.defects.bright import BrightScorer, plate

IN_USE = 12


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """Plates of a 12-bit camera, as 16-bit files in type folders."""
    folder = tmp_path_factory.mktemp("deep") / "camera"
    for number in range(6):
        place = folder / ("spot" if number % 2 else "good") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        # The lower four bits are noise; only the upper eight of the twelve are the plate.
        noise = np.random.default_rng(number).integers(0, 16, plate(number).shape)
        levels = plate(number, 200 * (number % 2)).astype(np.uint16) << 4
        Image.fromarray((levels | noise).astype(np.uint16)).save(place)
    return folder


def edge_of(path, bits):
    images = [plate(number, 200 * (number % 2)) for number in range(6)]
    config = EdgeConfig(int8=False, bits=bits)
    made = build_edge(BrightScorer(1.0).eval(), Thresholds(0.3, 0.6), images, config=config)
    path.write_bytes(made.model)
    return path


def test_every_part_sees_what_was_trained_on(camera, tmp_path):
    dataset = load_dataset(camera)
    try:
        assert dataset.bits == IN_USE
        trained = {sample.name: sample.pixels for sample in dataset.samples}
    finally:
        dataset.close()
    for number, (name, pixels) in enumerate(sorted(trained.items(), key=lambda one: one[0][-5])):
        assert np.array_equal(pixels, plate(number, 200 * (number % 2))), name
    path = edge_of(tmp_path / "edge.onnx", IN_USE)
    inspector = open_inspector(path)
    assert inspector.bits == load_central([path]).bits == IN_USE
    scores = {name: inspector.judge(pixels).score for name, pixels in trained.items()}
    assert max(scores.values()) - min(scores.values()) > 0.1
    out = tmp_path / "out"
    rows = []
    inspect_folder(camera, out, inspector, RunConfig(), decoder=PLAIN)
    from connectors.defects.inspect.journal import Journal

    with Journal(out / "line.db") as journal:
        rows = list(journal.rows())
    assert {row["name"]: row["edge"]["score"] for row in rows} == pytest.approx(scores)


def test_models_of_other_cameras_are_not_averaged(tmp_path):
    models = [edge_of(tmp_path / f"{bits}.onnx", bits) for bits in (10, IN_USE)]
    with pytest.raises(ConfigurationError, match="10, 12"):
        load_central(models, tmp_path)


@pytest.mark.parametrize("bits", [7, 17])
def test_bits_that_no_image_has_are_refused(bits, tmp_path):
    with pytest.raises(ValueError, match="give 8 to 16"):
        edge_of(tmp_path / "edge.onnx", bits)


@given(st.integers(8, 16), st.integers(0, 2**16 - 1))
def test_the_upper_eight_of_the_bits_in_use(bits, level):
    found = eight_bits(np.full((2, 2), level, np.uint16), bits)
    assert found.dtype == np.uint8
    assert (found == min(level * 2**8 // 2**bits, 255)).all()
    small = np.full((2, 2), level % 256, np.uint8)
    assert eight_bits(small, bits) is small
