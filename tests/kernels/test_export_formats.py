"""Exported files: each decides as the net, or is not there; cards, archives and workers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from kernels.compression.export import ExportConfig
from kernels.compression.formats.card import Card, card_path, held_path
from kernels.compression.formats.coreml import COREML
from kernels.compression.formats.decisions import compare, decide
from kernels.compression.formats.executorch import EXECUTORCH
from kernels.compression.formats.handed import HandedFormat
from kernels.compression.formats.program import load_program, require_plain
from kernels.compression.formats.protocol import FormatError, FormatUnavailableError, Local
from kernels.compression.formats.ship import ParityFailedError, ShipConfig, recheck, ship
from kernels.compression.formats.table import FORMATS, format_named
from kernels.compression.formats.tflite import TFLITE
from kernels.compression.formats.worker import SCRIPTS, Worker, WorkerLimits

CONFIG = ExportConfig(
    inputs=("pixels",), outputs=("logits",), dynamic={"pixels": {0: ("n", 1, 64)}}
)
QUICK = ShipConfig(rounds=2)


class Net(nn.Module):
    """A filter, a norm, a constant, a mean, a product."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, pixels):
        maps = self.norm(self.conv(pixels)) + torch.tensor([0.5] * 8)[:, None, None]
        return self.head(maps.relu().mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = Net().eval()
    made.norm.running_mean.uniform_(-1, 1)
    return made


@pytest.fixture(scope="module")
def held():
    rng = np.random.default_rng(0)
    return [{"pixels": rng.normal(size=(n, 3, 16, 16)).astype(np.float32)} for n in (2, 1, 40)]


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch-export"])
def test_a_file_decides_as_the_net_at_every_batch_size(net, held, tmp_path, name):
    form = format_named(name)
    path = tmp_path / f"net{form.suffix}"
    card = ship(net, form, path, held, CONFIG, asked=QUICK)
    assert card.parity["decisions"] == 43
    assert card.parity["flips"] == 0
    assert card.parity["max_rel"] < 1e-5
    assert set(card.latency) == {"source", name}
    assert card.inputs == [{"name": "pixels", "dtype": "float32", "shape": ["n", 3, 16, 16]}]
    assert Card.read(path).to_json() == card.to_json() == card_path(path).read_text()
    again, apart = recheck(path)
    assert again.digests == card.digests
    assert apart.flips == 0
    beside = {path, card_path(path), held_path(path), *(path.with_name(n) for n in card.digests)}
    assert set(tmp_path.iterdir()) == beside  # and no draft


def own_environment(form):
    """Skip where the environment of a format was not made."""
    if reason := form.available():
        pytest.skip(reason)
    return form


@pytest.mark.long
@pytest.mark.parametrize("name", ["aoti", "executorch", "tflite"])
def test_formats_of_workers_decide_as_the_net(net, held, tmp_path, name):
    form = own_environment(format_named(name))
    path = tmp_path / f"net{form.suffix}"
    card = ship(net, form, path, held, CONFIG, asked=QUICK)
    assert (card.parity["decisions"], card.parity["flips"]) == (43, 0)
    assert card.parity["max_rel"] < 1e-5
    folders = (Path(torch.__file__).parents[1], Path.cwd(), tmp_path)
    assert not [one for one in folders if str(one).encode() in path.read_bytes()]


@pytest.mark.long
def test_core_ml_is_converted_and_marked_as_not_run(net, held, tmp_path):
    own_environment(COREML)
    card = ship(net, COREML, tmp_path / "net.mlpackage", held, CONFIG, asked=QUICK)
    assert card.parity["run"] is False
    assert "not run here" in card.notes[0]
    with pytest.raises(FormatError, match="not run here"):
        recheck(tmp_path / "net.mlpackage")


def test_a_file_that_decides_otherwise_leaves_nothing_behind(net, held, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the old one")

    def reversed_net(inputs):
        with torch.no_grad():
            return {"logits": -net(torch.from_numpy(inputs["pixels"])).numpy()}

    with pytest.raises(ParityFailedError, match=r"of 43 decisions on held data differ"):
        ship(net, format_named("onnx"), path, held, CONFIG, asked=QUICK, reference=reversed_net)
    assert [one.name for one in tmp_path.iterdir()] == ["net.onnx"]
    assert path.read_bytes() == b"the old one"

    def shifted_net(inputs):
        with torch.no_grad():
            return {"logits": net(torch.from_numpy(inputs["pixels"])).numpy() * 1.01}

    with pytest.raises(ParityFailedError, match="values drift"):
        ship(net, format_named("onnx"), path, held, CONFIG, asked=QUICK, reference=shifted_net)
    assert path.read_bytes() == b"the old one"


def test_wrong_input_is_told_before_any_work(net, held, tmp_path):
    path, onnx = tmp_path / "net.onnx", format_named("onnx")
    with pytest.raises(FormatError, match="choose one of: onnx, openvino"):
        format_named("onxx")
    with pytest.raises(FormatError, match="no held inputs"):
        ship(net, onnx, path, [], CONFIG)
    with pytest.raises(FormatError, match="not \\['pixels'\\]"):
        ship(net, onnx, path, [{"x": held[0]["pixels"]}], CONFIG)
    wide = {"pixels": np.zeros((2, 3, 16, 17), np.float32)}
    with pytest.raises(FormatError, match="does not fit"):
        ship(net, onnx, path, [held[0], wide], CONFIG)
    broken = {"pixels": np.full((2, 3, 16, 16), np.nan, np.float32)}
    with pytest.raises(FormatError, match="no numbers"):
        ship(net, onnx, path, [broken], CONFIG)
    with pytest.raises(FormatError, match="training mode"):
        ship(Net(), onnx, path, held, CONFIG)
    with pytest.raises(FormatError, match="ONNX file does not become torch-export"):
        ship(b"onnx", format_named("torch-export"), path, held, CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_missing_environment_names_its_command(net, held, tmp_path):
    for form in (EXECUTORCH, TFLITE, COREML):
        absent = replace(form, venvs=tmp_path / "none")
        with pytest.raises(FormatUnavailableError, match=f"make export-venv FORMAT={form.name}"):
            ship(net, absent, tmp_path / "net", held, CONFIG)


def test_a_changed_file_is_refused(net, held, tmp_path):
    path = tmp_path / "net.pt2"
    ship(net, format_named("torch-export"), path, held, CONFIG, asked=QUICK)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(FormatError, match="is not as it was exported"):
        recheck(path)
    path.write_bytes(content)
    card_path(path).write_text(card_path(path).read_text()[:-30])
    with pytest.raises(FormatError, match="is no card"):
        recheck(path)
    card_path(path).unlink()
    with pytest.raises(FormatError, match="no card"):
        recheck(path)


def test_a_card_may_not_name_files_elsewhere(net, held, tmp_path):
    path = tmp_path / "net.pt2"
    ship(net, format_named("torch-export"), path, held, CONFIG, asked=QUICK)
    told = json.loads(card_path(path).read_text())
    told["digests"] = {"../net.pt2": "0" * 64}
    card_path(path).write_text(json.dumps(told))
    with pytest.raises(FormatError, match="is no card of"):
        Card.read(path)


def test_archives_hold_no_pickle_and_those_with_it_are_refused(net, held, tmp_path):
    path = tmp_path / "net.pt2"
    ship(net, format_named("torch-export"), path, held, CONFIG, asked=QUICK)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            content = archive.read(entry)
            assert not content.startswith((b"\x80\x02", b"\x80\x04", b"PK")), entry.filename
    program = load_program(path)
    usual = tmp_path / "usual.pt2"
    program.example_inputs = ((torch.zeros(2, 3, 16, 16),), {})
    torch.export.save(program, usual)
    with pytest.raises(FormatError, match="example inputs by pickle"):
        load_program(usual)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("model_weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
            new.writestr(entry, content)
    with pytest.raises(FormatError, match="by pickle"):
        load_program(tmp_path / "evil.pt2")
    (tmp_path / "no.pt2").write_bytes(b"no zip")
    with pytest.raises(FormatError, match="no whole archive"):
        require_plain(tmp_path / "no.pt2")


def test_decisions():
    logits = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    assert decide({"logits": logits}).tolist() == [1, 0]
    assert decide({"score": np.float32([0.4, 0.6])[:, None]}, 0.5).tolist() == [0, 1]
    assert decide({"score": np.float32(0.5), "verdict": np.int64(2)}).tolist() == [2]
    apart = compare([{"y": logits}], [{"y": logits[:, ::-1]}])
    assert (apart.decisions, apart.flips, apart.share) == (2, 2, 1.0)
    assert apart.max_rel == pytest.approx(0.8 / 0.9)
    gone = np.full_like(logits, np.nan)
    assert compare([{"y": gone}], [{"y": gone}]).max_rel == 0
    assert compare([{"y": logits}], [{"y": gone}]).max_rel == np.inf
    with pytest.raises(ValueError, match="expected"):
        compare([{"y": logits}], [{"y": logits[:1]}])


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
from hand_over import serve

def write(request):
    if request["path"] == "hang":
        time.sleep(60)
    if request["path"] == "die":
        print("out of luck", file=sys.stderr, flush=True)
        raise SystemExit(3)
    if request["path"] == "grow":
        return {{"size": len(bytearray(4 * 2**30))}}
    if request["path"] == "talk":
        print("what libraries print")
    raise RuntimeError("no such\\nthing")

serve(write, lambda path: (lambda arrays: [2 * one for one in arrays]))
"""


@pytest.fixture
def script(tmp_path):
    made = tmp_path / "own_worker.py"
    made.write_text(SCRIPT.format(folder=str(SCRIPTS)))
    return str(made)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("fail", "own: RuntimeError: no such$"),
        ("talk", "own: RuntimeError: no such$"),
        ("die", "ended with 3: out of luck"),
        ("grow", "MemoryError"),
        ("hang", "no answer within 3 s"),
    ],
)
def test_a_worker_that_fails_is_told_in_one_line(script, path, told):
    limits = WorkerLimits(seconds=3.0, memory=2 * 2**30)
    with Worker(Path(sys.executable), script, limits) as worker:
        with pytest.raises(FormatError, match=told) as caught:
            worker.ask({"do": "write", "path": path})
        assert "\n" not in str(caught.value)
        process = worker._process
    assert process.poll() is not None
    assert not Path(worker.folder.name).exists()


def test_a_worker_runs_arrays_and_ends_with_its_starter(script):
    with Worker(Path(sys.executable), script) as worker:
        worker.ask({"do": "open", "path": "x"})
        found, ms = worker.run([np.arange(3), np.float32(1.5)])
    assert found[0].tolist() == [0, 2, 4]
    assert found[1] == 3.0
    assert ms >= 0
    code = (
        "import sys, os, time; from pathlib import Path\n"
        "from kernels.compression.formats.worker import Worker\n"
        f"w = Worker(Path(sys.executable), {script!r}); print(w._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    pid, until = int(told.stdout), time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


class Shrunk(nn.Module):
    """Pixels of any size, resized with a filter wide enough for all of them."""

    def forward(self, pixels):
        image = pixels.permute(2, 0, 1)[None].float()
        return functional.interpolate(image, (16, 24), mode="bilinear", antialias=True)


def test_openvino_shrinks_as_torch_does(tmp_path):
    sizes = {0: ("height", 8, 999), 1: ("width", 8, 999)}
    config = ExportConfig(inputs=("pixels",), outputs=("small",), dynamic={"pixels": sizes})
    rng = np.random.default_rng(0)
    shapes = ((70, 90), (16, 24), (12, 20), (31, 200))
    held = [{"pixels": rng.integers(0, 256, (*shape, 3), dtype=np.uint8)} for shape in shapes]
    asked = ShipConfig(rounds=0, flips=0.001)  # the largest of a row of pixels may be a draw
    net = Shrunk().eval()
    card = ship(net, format_named("openvino"), tmp_path / "a.xml", held, config, asked=asked)
    assert card.parity["max_rel"] < 1e-6


def test_the_formats_of_the_table_are_whole():
    assert [*FORMATS] == [
        *("onnx", "openvino", "torch-export", "aoti", "executorch", "tflite", "coreml")
    ]
    for form in FORMATS.values():
        if isinstance(form, HandedFormat):
            assert (
                Path(__file__).parents[2] / "kernels/compression/formats/workers" / form.script
            ).is_file()
    assert shutil.which("g++") is None or not FORMATS["aoti"].available()


def test_an_engine_that_refuses_is_told(net, held, tmp_path):
    path = tmp_path / "net.xml"
    form = format_named("openvino")
    ship(net, form, path, held, CONFIG, asked=QUICK)
    opened = form.open(path, CONFIG)
    assert isinstance(opened, Local)
    with pytest.raises(FormatError, match="the engine refuses"):
        opened({"pixels": np.zeros((2, 4, 16, 16), np.float32)})
    path.write_text("<net/>")
    with pytest.raises(FormatError, match="OpenVINO cannot load it"):
        form.open(path, CONFIG)
