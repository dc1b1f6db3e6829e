"""``penstock export`` from the command line: what it writes, and what it says of wrong input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from flows.cli import main as cli
from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.formats.ship import recheck
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.bundle.bundle import DefectBundle, write_bundle
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import FACTS, WEIGHTS
from tasks.defects.detect.fit import fit
from tasks.defects.textures.line import LineConfig, make_line
from tests.tasks.defects.bright import parts

SMALL = DefectNetShape(stem=8, widths=(16, 16, 16), blocks=(1, 1, 1), dense=16)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with a detector that was hardly trained."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    line = make_line(
        LineConfig(texture="brushed", shape=(64, 64), ok=16, ng={"scratch": 6, "pit": 6}, seed=1)
    )
    config = DetectConfig(steps=0, memory=32, projected=8, folds=2, piece=32)
    files = fit(line, config, DefectNet(SMALL).eval()).to_bytes()
    made = parts(dataset="line")
    facts = json.loads(files[FACTS])
    example = np.tile(made.example, (1, 2, 2, 1))
    made = replace(made, detector=files[WEIGHTS], detector_facts=facts, example=example)
    return write_bundle(tmp_path_factory.mktemp("export") / "bundle", made).folder


@pytest.fixture
def net(tmp_path, monkeypatch):
    """An archive as torch writes it without examples, and the same net as ONNX."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    example, free = torch.zeros(2, 4), torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(made, (example,), dynamic_shapes=({0: free},))
    program.example_inputs = None
    torch.export.save(program, tmp_path / "net.pt2")
    config = ExportConfig(inputs=("x",), outputs=("y",), dynamic={"x": {0: ("n", 1, 64)}})
    (tmp_path / "theirs.onnx").write_bytes(export_onnx(made, [example], config))
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    np.savez(tmp_path / "held.npz", x=rows, input=rows)
    return tmp_path


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_inspection_model_gives_its_edge_file(bundle, tmp_path, capfd, name):
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[name]
    path = tmp_path / f"line{suffix}"
    assert cli.run(["export", str(bundle), "--to", name, "--out", str(path)]) == 0
    assert "0 of 32 differ" in capfd.readouterr().out
    assert recheck(path)[0].outputs[3]["name"] == "verdict"


@pytest.mark.long
def test_an_inspection_model_gives_its_module_with_thresholds_inside(bundle, tmp_path, capfd):
    path = tmp_path / "line.pt2"
    assert cli.run(["export", str(bundle), "--to", "torch-export", "--out", str(path)]) == 0
    told = capfd.readouterr().out
    assert "0 of 32 differ" in told
    assert "thresholds" in told
    assert recheck(path)[1].flips == 0


@pytest.mark.long
def test_a_file_of_one_size_of_images(bundle, tmp_path, capfd):
    path = tmp_path / "line.onnx"
    height, width, _ = shape = DefectBundle.load(bundle).example()[0][0].shape
    words = ["export", str(bundle), "--to", "onnx", "--out", str(path), "--shape"]
    assert cli.run([*words, f"pixels={height}x{width}x3"]) == 0
    told = capfd.readouterr().out
    assert "0 of 32 differ" in told
    assert "thresholds" in told
    card, _ = recheck(path)
    assert card.inputs[0]["shape"] == list(shape)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ("pixels=40x40x3", "none of examples of the bundle in eight positions each has 40 x 40"),
        ("pixels=0x40x3", "pixels=0x40x3: is no shape of images"),
        ("pixels=3x40x40", "Give pixels=HEIGHTxWIDTHx3"),
        ("image=40x40x3", "image=40x40x3: is no shape of images"),
    ],
)
def test_shapes_that_are_none_of_the_line(bundle, tmp_path, capfd, shape, told):
    words = ["export", str(bundle), "--to", "onnx", "--out", str(tmp_path / "x.onnx")]
    assert cli.run([*words, "--shape", shape]) != 0
    assert told in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_archive_becomes_onnx_and_is_checked_again(net, capfd):
    assert cli.run(["export", "net.pt2", "--to", "onnx", "--data", "held.npz"]) == 0
    assert "0 of 64 differ" in capfd.readouterr().out
    assert cli.run(["export", "net.onnx", "--check"]) == 0
    assert "0 of 64 differ" in capfd.readouterr().out
    card = json.loads((net / "net.onnx.card.json").read_text())
    assert card["parity"]["held"] == "held.npz"


def test_an_onnx_file_becomes_openvino(net, capfd):
    assert cli.run(["export", "theirs.onnx", "--to", "openvino"]) == 0
    assert "drawn at random" in capfd.readouterr().out
    assert (net / "theirs.bin").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["net.pt2"], "no format is given"),
        (["net.pt2", "--to", "onxx"], "choose one of: onnx, openvino"),
        (["gone.pt2", "--to", "onnx"], "no such model"),
        (["held.npz", "--to", "onnx"], "no model that can be exported"),
        (["theirs.onnx", "--to", "onnx"], "is the model itself"),
        (["theirs.onnx", "--to", "torch-export"], "does not become torch-export"),
        (["net.pt2", "--to", "onnx", "--data", "gone.npz"], "is no .npz file"),
        (["theirs.onnx", "--to", "openvino", "--shape", "z=1x4"], "has no input"),
        (["broken.pt2", "--to", "onnx"], "no whole archive"),
        (["broken.onnx", "--to", "openvino"], "no whole ONNX file"),
        (["net.pt2", "--check"], "no card"),
    ],
)
def test_wrong_input_is_one_line(net, capfd, arguments, told):
    for name in ("broken.pt2", "broken.onnx"):
        (net / name).write_bytes(b"\x08\x08 neither")
    before = sorted(path.name for path in net.iterdir())
    assert cli.run(["export", *arguments]) != 0
    errors = capfd.readouterr().err.strip()
    assert told in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in net.iterdir()) == before
