"""penstock-lite as a line has it: the wheel in an empty environment, under 2 GiB of addresses."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from connectors.defects.edge_file import open_edge_file, record_path
from tests.connectors.lite.small_files import net, write_detector
from tests.lite_venv import UnreachableError, bare, limited, make_environment

NEEDED = {"penstock-lite", "numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf"}
"""Itself, its two needs, and what ONNX Runtime needs."""
LIST = """
import importlib.metadata as m, importlib.util as u
print(*sorted(d.name for d in m.distributions()))
print(*[n for n in ("torch", "onnx", "PIL", "pyarrow", "kernels", "tasks") if u.find_spec(n)])
"""
THREE_LINES = """
from penstock_lite.model import open_model
model = open_model({model!r}, threads=1)
print(model.run({image!r})["verdict"])
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    try:
        return make_environment(tmp_path_factory.mktemp("lite"))
    except UnreachableError as error:
        pytest.skip(f"numpy and onnxruntime are neither cached nor to be fetched: {error}")


@pytest.fixture(scope="module")
def images():
    """RGB images, the later the rougher."""
    rng = np.random.default_rng(3)
    rough = [rng.integers(0, 40 + 9 * place, (64, 48, 3)) for place in range(12)]
    return [pixels.astype(np.uint8) for pixels in rough]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, images):
    """A detector with its record, of which all verdicts occur."""
    path = tmp_path_factory.mktemp("shipped") / "line.onnx"
    write_detector(path, images)
    return path


@dataclass
class Done:
    code: int
    lines: list
    told: str


@pytest.fixture
def lite(programs, tmp_path):
    def run(*arguments):
        command = limited([str(programs / "penstock-lite"), *map(str, arguments)])
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path,
                              env=bare(), timeout=60)  # fmt: skip
        return Done(done.returncode, [json.loads(x) for x in done.stdout.splitlines()], done.stderr)

    return run


def python(programs, code, folder):
    command = [str(programs / "python"), "-c", code]
    done = subprocess.run(limited(command), capture_output=True, text=True, env=bare(), check=True,
                          cwd=folder)  # fmt: skip
    return done.stdout.splitlines()


def saved(folder, images):
    paths = []
    for place, pixels in enumerate(images):
        paths.append(folder / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def copied(shipped, folder):
    path = folder / "line.onnx"
    path.write_bytes(shipped.read_bytes())
    record_path(path).write_bytes(record_path(shipped).read_bytes())
    return path


def test_nothing_else_is_there(programs, tmp_path):
    installed, importable = python(programs, LIST, tmp_path)
    assert set(installed.split()) == NEEDED
    assert importable == ""


def test_a_detector_says_what_it_says_in_the_house(lite, shipped, images, tmp_path):
    paths = saved(tmp_path, images)
    done = lite("run", shipped, *paths, "--out", "maps", "--threads", 1)
    assert (done.code, done.told) == (0, "")
    house = open_edge_file(shipped, threads=1, demand_record=True)
    assert {line["verdict"] for line in done.lines} == {"OK", "NG", "REVIEW"}
    for told, path, pixels in zip(done.lines, paths, images, strict=True):
        wanted = house.judge(pixels)
        assert told["input"] == str(path)
        assert (told["score"], told["verdict"]) == (wanted.score, wanted.verdict)
        assert told["kinds"] == dict(wanted.kinds)
        assert np.array_equal(np.load(tmp_path / told["heat"]["file"]), wanted.heat)


def test_three_lines_of_python(programs, shipped, images, tmp_path):
    (image,) = saved(tmp_path, images[:1])
    code = THREE_LINES.format(model=str(shipped), image=str(image))
    assert python(programs, code, tmp_path) == [open_edge_file(shipped).judge(images[0]).verdict]


def test_it_decides_here_as_where_it_was_made(lite, shipped, images, tmp_path):
    done = lite("check", shipped, *saved(tmp_path, images))
    assert (done.code, done.told) == (0, "")
    (told,) = done.lines
    assert (told["checked"], told["same"], told["flips"]) == (len(images), True, 0)
    other = saved(tmp_path, [255 - images[0]])
    done = lite("check", shipped, *other)
    assert done.code == 2
    assert "not among those of the record" in done.told


def test_it_tells_what_a_file_is(lite, shipped):
    (told,) = lite("info", shipped).lines
    assert told["kind"] == "detector"
    assert told["bits"] == 12
    assert told["record"]["images"] == 12
    assert len(told["sha256"]) == 64
    assert lite("info", shipped, "--sha256", told["sha256"].upper()).code == 0
    done = lite("info", shipped, "--sha256", "0" * 64)
    assert (done.code, done.lines) == (2, [])
    assert "copy it anew" in done.told


def test_any_net_of_one_input_runs(lite, tmp_path):
    weights = np.random.default_rng(0).normal(size=(6, 2000)).astype(np.float32)
    (tmp_path / "net.onnx").write_bytes(net(weights))
    x = np.ones((3, 6), np.float32)
    np.save(tmp_path / "x.npy", x)
    done = lite("run", "net.onnx", "x.npy", "--out", "answers")
    assert (done.code, done.told) == (0, "")
    assert np.allclose(np.load(tmp_path / done.lines[0]["y"]["file"]), x @ weights, atol=1e-4)
    for wrong, told in ((x.astype(np.float64), "float64 (3, 6)"), (x[:, :5], "float32 (3, 5)")):
        np.save(tmp_path / "x.npy", wrong)
        one_line(
            lite("run", "net.onnx", "x.npy"), f"{told} is given, the file takes float32 [n, 6]"
        )


def test_deep_gray_is_judged_by_the_bits_in_use(lite, shipped, images, tmp_path):
    gray = images[5][:, :, 0]
    Image.fromarray(gray.astype(np.uint16) << 4).save(tmp_path / "deep.png")
    (told,) = lite("run", shipped, "deep.png").lines
    assert told["score"] == open_edge_file(shipped).judge(gray).score


def one_line(done, told):
    assert done.code == 2
    assert done.told.startswith("penstock-lite: ")
    assert done.told.count("\n") == 1
    assert told in done.told
    assert "Traceback" not in done.told


def spoilt(path, what):
    record = record_path(path)
    content = path.read_bytes()
    if what == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif what == "turned":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif what == "text":
        path.write_text("no model\n" * 100)
    elif what == "missing":
        path.unlink()
    elif what == "no record":
        record.unlink()
    elif what == "record changed":
        record.write_text(record.read_text().replace('"images"', '"image"'))
    elif what == "record cut":
        record.write_bytes(record.read_bytes()[:500])


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("cut", "ends early"),
        ("turned", "not the one of its parity record"),
        ("text", "no ONNX file"),
        ("missing", "no such file"),
        ("no record", "no parity record line.parity.json"),
        ("record changed", "broken"),
        ("record cut", "broken"),
    ],
)
def test_a_spoilt_file_or_record_is_one_line_and_code_2(lite, shipped, tmp_path, what, told):
    path = copied(shipped, tmp_path)
    spoilt(path, what)
    done = lite("check", path)
    one_line(done, told)
    assert done.lines == []


def test_a_spoilt_input_does_not_keep_the_others(lite, shipped, images, tmp_path):
    good, bad = saved(tmp_path, images[:2])
    bad.write_bytes(bad.read_bytes()[:200])
    done = lite("run", shipped, bad, good)
    one_line(done, f"{bad}: a broken PNG")
    assert [told["input"] for told in done.lines] == [str(good)]


def test_it_is_timed(lite, shipped):
    (told,) = lite("bench", shipped, "--rounds", 3, "--side", 64, "--threads", 1).lines
    assert told["shape"] == [64, 64, 3]
    assert 0 < told["ms_min"] <= told["ms_p50"] <= told["ms_p95"]
    assert 0 < told["rss_mb"] < 2048


def test_large_images_fit_into_the_limit(lite, shipped, tmp_path):
    np.save(tmp_path / "large.npy", np.zeros((1100, 1500), np.uint8))
    done = lite("run", shipped, "large.npy")
    assert (done.code, done.told) == (0, "")
    assert done.lines[0]["heat"]["shape"] == [1100, 1500]


def test_wrong_options_are_told(lite, shipped):
    done = lite("bench", shipped, "--rounds", "0")
    assert done.code == 2
    assert "give a whole number" in done.told
