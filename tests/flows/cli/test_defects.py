"""``penstock defects``: what is printed, what it costs, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli import main as cli
from tests.connectors.defects.lines import write_plates
from tests.processes import wait_for

ROOT = Path(__file__).resolve().parents[3]
UNDER_LIMIT = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from flows.cli import main
code = main.run(sys.argv[1:])
who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
peak = sum(resource.getrusage(each).ru_maxrss for each in who)
print(json.dumps({"code": code, "torch": "torch" in sys.modules, "mib": peak // 1024}))
"""


@pytest.fixture(scope="module")
def edge_file(tmp_path_factory):
    """A real edge file of a small scorer, and a generated line beside it."""
    import torch

    from tasks.defects.edge.build import EdgeConfig, build_edge
    from tasks.defects.judgement import Thresholds
    from tasks.defects.scorer import Scorer, Scores
    from tasks.defects.textures.line import LineConfig, make_line

    class Contrast(Scorer):
        """How far the image's darkest cell lies below its mean."""

        def forward(self, pixels):
            cells = torch.nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 4)
            heat = (cells.mean(dim=(2, 3), keepdim=True) - cells).clamp(0, 1)
            return Scores(heat.amax(dim=(1, 2, 3)), heat, torch.ones_like(heat[:, :, 0, 0]))

    torch.set_num_threads(1)
    line = make_line(LineConfig(shape=(64, 64), ok=6, ng={"pit": 3}, seed=1))
    scorer = Contrast(("unknown",), (64, 64)).eval()
    pixels = [sample.pixels for sample in line]
    made = build_edge(scorer, Thresholds(0.3, 0.6), pixels, config=EdgeConfig(int8=False))
    path = tmp_path_factory.mktemp("edge") / "edge.onnx"
    path.write_bytes(made.model)
    folder = path.parent / "parts"
    folder.mkdir()
    for number, sample in enumerate(line):
        Image.fromarray(sample.pixels).save(folder / f"{number}.png")
    return path


@pytest.mark.long
def test_a_folder_is_inspected_in_two_gigabytes_without_torch(edge_file, tmp_path):
    big = np.random.default_rng(0).integers(0, 255, (2_000, 3_000, 3), dtype=np.uint8)
    folder = tmp_path / "parts"
    folder.mkdir()
    for source in (edge_file.parent / "parts").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    Image.fromarray(big).save(folder / "big.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    command = ["defects", "inspect", str(folder), "--model", str(edge_file)]
    ran = subprocess.run(
        [sys.executable, "-c", UNDER_LIMIT, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    *told, last = ran.stdout.splitlines()
    facts = json.loads(last)
    assert facts["code"] == 0, ran.stderr
    assert not facts["torch"]
    assert facts["mib"] <= 2_048
    assert told[0].startswith("11 images in, ")
    assert "1 quarantined" in told[0]
    results = tmp_path / "parts.inspected" / "results.jsonl"
    assert len(results.read_text().splitlines()) == 11
    assert any(line.startswith("results ") for line in told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "missing.onnx"}, "there is no such file"),
        ({"model": "text.onnx"}, "text.onnx: "),
        ({"folder": "nowhere"}, "is no folder"),
        ({"more": ("--sink", "pigeon:x")}, "no known form"),
        ({"more": ("--central", "http://plant.example")}, "in the clear"),
        ({"more": ("--labels", "labels.csv")}, "'image' and 'label'"),
        ({"more": ("--decoder-mib", "100")}, "384 or more"),
        ({"more": ("--learn-parts", "10")}, "give 40 to 2,000, or 0"),
        ({"more": ("--part-pattern", "(")}, "no regular expression"),
    ],
)
def test_wrong_input_ends_with_1_and_one_line(
    edge_file, tmp_path, monkeypatch, capsys, change, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_CENTRAL_TOKEN", "t" * 24)
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "labels.csv").write_text("a;b\n")
    write_plates(tmp_path / "cam", range(1))
    model = change.get("model", str(edge_file))
    line = ["defects", "inspect", change.get("folder", "cam"), "--model", model]
    assert cli.run([*line, *change.get("more", ())]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_what_waits_is_told_with_the_next_step(edge_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PENSTOCK_WEBHOOK_SECRET", "w" * 24)
    from connectors.defects.inspect import inspector
    from tests.connectors.defects.lines import SpotInspector

    monkeypatch.setattr(inspector, "open_inspector", lambda _: SpotInspector())
    write_plates(tmp_path / "cam", range(10))
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\n00000.png,ok\n00006.png,ng\n00008.png,ng\n")
    line = ["defects", "inspect", str(tmp_path / "cam"), "--model", "x", "--wait", "0.2"]
    line += ["--central", "http://127.0.0.1:9", "--sink", "http://127.0.0.1:9/hook"]
    assert cli.run([*line, "--labels", str(labels)]) == 0
    told = capsys.readouterr().out
    assert "10 images in, 6 OK, 2 NG, 2 REVIEW, 0 quarantined" in told
    assert "left to review 20.0%" in told
    assert "2 images wait for the central model" in told
    assert "10 results wait for webhook:http://127.0.0.1:9/hook" in told
    assert "run the same command again" in told
    assert "edge alone: missed 1 of 2 defective" in told
    assert "the line is not watched yet: 90 parts more" in told
    labels.write_text("image,label\ncam/00000.png,ok\n")
    assert cli.run([*line, "--labels", str(labels)]) == 0
    assert "no label names an inspected image" in capsys.readouterr().out


def test_serving_tells_the_address_and_ends_by_ctrl_c(edge_file, tmp_path):
    command = ["defects", "serve", "--model", str(edge_file), "--port", "0", "--positions", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", *command, "--home", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PENSTOCK_API_TOKENS": f"edge:score:{'s' * 24}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines[0].startswith("serving http://127.0.0.1:")
    assert "--central http://127.0.0.1:" in lines[1]
    wait_for((tmp_path / "central.db").is_file)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in {0, 130}


def test_several_models_need_good_images(edge_file, capsys, monkeypatch):
    monkeypatch.setenv("PENSTOCK_API_TOKENS", f"edge:score:{'s' * 24}")
    line = ["defects", "serve", "--model", str(edge_file), "--model", str(edge_file)]
    assert cli.run(line) == 1
    assert "Give --good FOLDER" in capsys.readouterr().err


def test_changes_of_the_line_are_told_at_the_end(capsys):
    from connectors.defects.inspect.monitor import WatchReport
    from flows.cli.defects_inspect import show_watch

    alarms = tuple(
        {"event": n, "image": f"{n}.png", "message": "check the lamp"} for n in range(1, 9)
    )
    report = WatchReport(0, "now", 1_200, 10_000.0, "", 0.01, {}, 8, alarms, before=1)
    show_watch(report)
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "the line has changed at 8.png: check the lamp",
        "  and 2 alarms before, see alarms.jsonl",
    ]
    assert len(told) == 6
    show_watch(replace(report, before=8))
    assert capsys.readouterr().out == (
        "no new alarm of the line in 1,200 parts since it was learnt (8 before, see alarms.jsonl)\n"
    )
