"""The edge file: decides as the trained detector on every image, and refuses what it cannot run."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from torch.nn import functional

from kernels.compression.export import ExportConfig, export_onnx, with_metadata
from kernels.compression.onnx_wire import read_outline
from kernels.compression.parity import (
    ParityError,
    ParityRecord,
    answers_of,
    check_parity,
    difference,
    image_digest,
)
from kernels.compression.qdq import QdqConfig
from kernels.compression.sessions import open_session
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import Detector
from tasks.defects.detect.fit import fit
from tasks.defects.edge.build import EdgeConfig, build_edge, weights_digest
from tasks.defects.edge.format import KEY, MAX_PIXELS, VERDICTS, EdgeFileError, read_facts
from tasks.defects.edge.graph import EdgeGraph, float32_up
from tasks.defects.edge.preprocess import prepare, prepare_pixels
from tasks.defects.edge.session import EdgePixelsError, EdgeSession, checked_pixels, enlarged
from tasks.defects.edge.tiles import tiles
from tasks.defects.edge.trim import TrimmedScorer, trimmed
from tasks.defects.judgement import Thresholds
from tasks.defects.scorer import Scorer
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks import defects_latency
from tests.processes import unmeasured

SIZE = (64, 64)
SMALL = DefectNetShape(stem=8, widths=(16, 16, 16), blocks=(1, 1, 1), dense=16)
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


@pytest.fixture(scope="module")
def line():
    kinds = {"scratch": 6, "pit": 6}
    made = make_line(LineConfig(texture="brushed", shape=SIZE, ok=16, ng=kinds, seed=1))
    assert {s.label for s in made} == {"ok", "ng"}
    return made


@pytest.fixture(scope="module")
def scorer(line):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = DetectConfig(steps=0, memory=32, projected=8, folds=2, piece=32)
    made = fit(line, config, DefectNet(SMALL).eval()).scorer
    made.size = SIZE
    return made


@pytest.fixture(scope="module")
def thresholds(scorer, line):
    with torch.inference_mode():
        scores = [float(scorer(prepare_pixels(s.pixels, SIZE)).score[0]) for s in line]
    return Thresholds(*np.quantile(scores, [0.4, 0.7]).tolist())


@pytest.fixture(scope="module")
def edge(scorer, thresholds, line):
    qdq = QdqConfig(rules=("min-max",), threads=1, ranking_inputs=2, most_float=2)
    config = EdgeConfig(qdq=qdq, calibration=8)
    return build_edge(scorer, thresholds, [s.pixels for s in line], config=config)


@pytest.fixture(scope="module")
def session(edge):
    return EdgeSession(edge.model, threads=1)


def trained(scorer, thresholds, pixels):
    with torch.inference_mode():
        score, heat, kinds, verdict = EdgeGraph(scorer, thresholds).eval()(torch.tensor(pixels))
    return float(score), heat.numpy(), kinds.numpy(), int(verdict)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 9), (17, 11), (64, 64), (63, 65), (65, 200), (300, 31), (500, 700)]
)
def test_the_float_file_answers_as_the_module_at_every_size(scorer, thresholds, edge, shape):
    pixels = noise(*shape, 3)
    made = open_session(edge.float32, threads=1)
    score, heat, kinds, verdict = made.run(None, {"pixels": pixels})
    wanted = trained(scorer, thresholds, pixels)
    assert float(score) == pytest.approx(wanted[0], abs=2e-4)
    assert np.allclose(heat, wanted[1], atol=1e-3)
    assert np.allclose(kinds, wanted[2], atol=1e-3)
    assert verdict == wanted[3]


@pytest.mark.long
def test_a_scorer_without_a_size_keeps_the_image_s_own(scorer, thresholds, line):
    own = copy.deepcopy(scorer)
    own.size = None
    config = EdgeConfig(int8=False, tile=128)
    made = build_edge(own, thresholds, [s.pixels for s in line[:4]], config=config)
    session = EdgeSession(made.model, threads=1)
    whole = Detector(own, DetectConfig(side=128), thresholds=thresholds)
    for shape in ((64, 64), (33, 90), (8, 8), (150, 60), (300, 290)):
        pixels = noise(*shape, 3)
        (wanted,) = whole.judge([pixels])
        found = session.judge(pixels)
        assert found.score == pytest.approx(wanted.score, abs=1e-4)
        assert found.verdict == wanted.verdict
        assert np.allclose(found.heat, wanted.heat, atol=2e-3)
        assert list(found.kinds.values()) == pytest.approx(list(wanted.kinds.values()), abs=1e-3)


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([128, 160, 512]))
def test_tiles_cover_the_image_and_lie_in_it(height, width, side):
    seen = np.zeros((height, width), np.int64)
    for rows, columns in tiles(height, width, side):
        cut = seen[rows, columns]
        assert cut.shape == (min(side, height), min(side, width))
        cut += 1
    assert seen.min() >= 1


@pytest.fixture(scope="module")
def taught(line):
    """A scorer whose net was trained for some steps: it decides alone."""
    torch.manual_seed(0)
    config = DetectConfig(steps=4, fold_steps=1, memory=32, projected=8, piece=32, batch=2)
    return fit(line, config, DefectNet(SMALL).eval()).scorer


def test_a_trained_detector_is_trimmed_and_answers_as_before(taught, scorer):
    small = trimmed(taught)
    assert isinstance(small, TrimmedScorer)
    assert trimmed(scorer) is scorer  # its evidence weighs something
    for shape in ((64, 64), (33, 90), (8, 8)):
        pixels = torch.tensor(noise(*shape, 3)).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            for one, other in zip(taught(pixels), small(pixels), strict=True):
                assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.long
def test_thresholds_are_set_by_the_scores_of_the_file_itself(taught, line):
    images = [s.pixels for s in line]
    seen: list[float] = []

    def settle(session):
        seen.extend(session.judge(image).score for image in images)
        return Thresholds(*sorted((float(np.median(seen)), min(seen))))

    config = EdgeConfig(qdq=QdqConfig(rules=("min-max",), threads=1, most_float=0), calibration=8)
    limits = Thresholds(0.5, 0.5)  # equal ones must stay two in the file
    made = build_edge(taught, limits, images, settle=settle, config=config)
    facts, session = read_facts(made.model), EdgeSession(made.model, threads=1, record=made.record)
    assert facts.thresholds == Thresholds(min(seen), float(np.median(seen)))
    assert [session.judge(image).score for image in images] == seen
    assert all(session.judge(i).verdict == facts.thresholds.verdict(s)
               for i, s in zip(images, seen, strict=True))  # fmt: skip
    told = made.record.facts["thresholds"]
    assert told == {"detector": [0.5, 0.5], "edge": [min(seen), float(np.median(seen))]}
    assert made.record.trained[0][1] == int(made.record.trained[0][0] >= 0.5)
    # What weighs nothing is not in the file: neither memory nor projections.
    names = {t.name for t in onnx.load_model_from_string(made.float32).graph.initializer}
    assert not any("remembered" in name or "reduce." in name for name in names)
    for shape in ((8, 8), (30, 77), (200, 64)):
        pixels = noise(*shape, 3)
        score, *_ = open_session(made.float32, threads=1).run(None, {"pixels": pixels})
        assert float(score) == pytest.approx(trained(taught, limits, pixels)[0], abs=2e-4)


def test_every_level_of_fusion_decides_alike(edge, line, thresholds):
    images = [np.repeat(s.pixels[:, :, None], 3, 2) for s in line]
    plain, *fused = [answers_of(edge.float32, images, level=level) for level in LEVELS]
    assert len({verdict for _, verdict in plain}) > 1
    assert all(difference(plain, one).flips == 0 for one in fused)
    # Int8 kernels round otherwise than float ones on int8 numbers: scores move by a little, and
    # a verdict only where the score lies that near to a threshold.
    plain, *fused = [answers_of(edge.model, images, level=level) for level in LEVELS]
    moved = max(difference(plain, one).score_max for one in fused)
    assert moved < 0.3 * np.std([score for score, _ in plain])
    ends = thresholds.ok_below, thresholds.ng_from
    clear = [i for i, (score, _) in enumerate(plain) if min(abs(score - e) for e in ends) > moved]
    assert len(clear) > len(line) / 3
    assert all(plain[i][1] == one[i][1] for one in fused for i in clear)


def test_int8_is_in_the_file_and_the_preprocessing_is_not_quantised(edge):
    nodes = onnx.load_model_from_string(edge.model).graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count("QuantizeLinear") > 5
    assert kinds.index("QuantizeLinear") > kinds.index("Resize")
    assert "BatchNormalization" not in kinds
    assert b"/work" not in edge.model
    assert b"stack_trace" not in edge.model


@given(st.floats(allow_nan=False), st.floats(allow_nan=False, width=32))
def test_thresholds_in_float32_decide_as_in_float64(threshold, score):
    assert (np.float32(score) < float32_up(threshold)) == (score < threshold)
    assert (np.float32(score) >= float32_up(threshold)) == (score >= threshold)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(-9.0, "OK"), (0.1, "REVIEW"), (0.2, "NG"), (math.nan, "REVIEW"), (math.inf, "NG")],
)
def test_verdicts_in_the_file_are_those_of_thresholds(scorer, score, verdict):
    limits = Thresholds(0.1, 0.2)

    class Fixed(Scorer):
        def forward(self, pixels):
            return scorer(pixels)._replace(score=torch.full((1,), float(np.float32(score))))

    fixed = Fixed(scorer.kinds, SIZE).eval()
    got = trained(fixed, limits, noise(8, 8, 3))[3]
    assert VERDICTS[got] == verdict == limits.verdict(float(np.float32(score)))


# What people report of exported detectors: other scores, because something around the net differs.


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 99))
def test_resizing_is_torch_s_antialiased_filter(edge, height, width, seed):
    pixels = noise(height, width, 3, seed=seed)
    proto = onnx.load_model_from_string(edge.float32)
    resize = next(node for node in proto.graph.node if node.op_type == "Resize")
    attributes = {a.name: helper.get_attribute_value(a) for a in resize.attribute}
    assert attributes["antialias"] == 1
    assert attributes["exclude_outside"] == 1
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name=resize.output[0]))
    (found,) = open_session(proto.SerializeToString(), threads=1).run(None, {"pixels": pixels})
    wanted = prepare(torch.from_numpy(pixels), SIZE).numpy() * 255
    assert np.abs(found - wanted).max() < 0.02


def test_resizing_is_that_of_pillow_within_its_rounding():
    pixels = noise(150, 90, 3)
    pillow = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))
    ours = prepare_pixels(pixels, SIZE)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - pillow).max() <= 1.01


def test_gray_and_the_same_gray_as_rgb_are_one_image(session, line):
    gray = line[0].pixels
    assert gray.ndim == 2
    assert session.judge(gray).score == session.judge(np.repeat(gray[:, :, None], 3, 2)).score


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (np.zeros((8, 8), np.uint16), "uint16.*eight_bits"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 4), np.uint8), "alpha"),
        (np.zeros((8, 8, 1), np.uint8), "give"),
        (np.zeros((3, 8, 8), np.uint8), "give"),
        (np.zeros((2, 8, 8, 3), np.uint8), "give"),
        (np.zeros((7, 8, 3), np.uint8), "7 x 8 pixels; 8 to"),
        ([[1]], "list"),
    ],
)
def test_other_pixels_are_refused_with_what_to_give(session, pixels, told):
    with pytest.raises(EdgePixelsError, match=told):
        session.judge(pixels)


def test_huge_images_are_refused_before_they_are_touched():
    side = math.isqrt(MAX_PIXELS) + 1
    with pytest.raises(EdgePixelsError, match="in all"):
        checked_pixels(np.broadcast_to(np.zeros(1, np.uint8), (side, side)))
    with pytest.raises(EdgePixelsError, match="a side"):
        checked_pixels(np.broadcast_to(np.zeros(1, np.uint8), (8, 20_001)))


def test_a_view_is_judged_as_its_copy(session):
    pixels = noise(40, 60, 3)
    flipped = pixels[::-1, ::-1]
    assert session.judge(flipped).score == session.judge(flipped.copy()).score
    assert session.judge(pixels[:, :, 0]).heat.shape == (40, 60)


def test_a_judgement_is_whole(session, scorer, line):
    for sample in line[:3]:
        found = session.judge(sample.pixels)
        assert found.heat.shape == sample.pixels.shape[:2]
        assert found.heat.dtype == np.float32
        assert 0 <= found.heat.min() <= found.heat.max() <= 1
        assert tuple(found.kinds) == scorer.kinds
        assert sum(found.kinds.values()) == pytest.approx(1, abs=1e-4)
        assert found.verdict == session.facts.thresholds.verdict(found.score)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), height=st.integers(1, 40),
       width=st.integers(1, 40))  # fmt: skip
def test_heat_is_enlarged_as_torch_does(rows, columns, height, width):
    heat = np.random.default_rng(rows).random((rows, columns), dtype=np.float32)
    wanted = functional.interpolate(
        torch.from_numpy(heat)[None, None], size=(height, width), mode="bilinear",
        align_corners=False,
    )[0, 0]  # fmt: skip
    assert np.allclose(enlarged(heat, (height, width)), wanted, atol=1e-5)


# The page, the record, and files that are not what they should be.


def test_the_file_tells_what_it_is(edge, scorer, thresholds):
    facts = read_facts(edge.model)
    assert facts.kinds == scorer.kinds
    assert facts.thresholds == thresholds
    assert facts.size == SIZE
    assert facts.model == weights_digest(scorer)
    assert facts.parity == edge.record.digest()
    assert facts.int8
    assert facts.created_by == "penstock"


def test_the_record_proves_and_is_checked_anew(edge, line):
    record = ParityRecord.from_json(edge.record.to_json())
    assert record == edge.record
    assert record.exported.flips == 0
    assert record.exported.score_max < 1e-3
    images = [np.repeat(s.pixels[:, :, None], 3, 2) for s in line]
    checked = check_parity(edge.model, record, images[::-1])
    assert checked.same
    assert checked.images == len(line)
    assert checked.against_trained.flips == record.quantised.flips
    assert sum(record.quantised.table.values()) == len(line)
    with pytest.raises(ParityError, match="not among those"):
        check_parity(edge.model, record, [noise(8, 8, 3)])
    with pytest.raises(ParityError, match="not the one of its parity record"):
        check_parity(edge.float32, record, images)


def test_a_file_is_refused_with_another_s_record(edge):
    assert EdgeSession(edge.model, threads=1, record=edge.record)
    with pytest.raises(EdgeFileError, match="not the one of its parity record"):
        EdgeSession(edge.model, threads=1, record=replace(edge.record, model="0" * 64))
    other = replace(edge.record, runtime="another")
    with pytest.raises(EdgeFileError, match="another parity record"):
        EdgeSession(edge.model, threads=1, record=other)


def test_image_digests_tell_shape_and_type_apart():
    zeros = np.zeros((2, 6), np.uint8)
    others = [zeros.reshape(3, 4), zeros.astype(np.int8), zeros + 1]
    assert len({image_digest(x) for x in (zeros, *others)}) == 4


def page(edge, **changes):
    told = json.loads(read_outline(edge.model).metadata[KEY]) | changes
    return with_metadata(edge.model, {KEY: json.dumps(told)})


def other_onnx(**tensor):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    for key, value in tensor.items():
        setattr(weight, key, value)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]))


def outside():
    model = other_onnx(data_location=TensorProto.EXTERNAL)
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def outside_in_a_subgraph():
    inner = onnx.load_model_from_string(outside()).graph
    model = other_onnx()
    model.graph.node.append(
        helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    )
    return model.SerializeToString()


def of_a_vendor():
    model = other_onnx()
    model.graph.node[0].domain = "com.vendor"
    return model.SerializeToString()


def with_functions():
    model = other_onnx()
    model.functions.add(name="f", domain="own")
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no whole ONNX"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "ONNX"),
        (b"PK\x03\x04" + bytes(64), "ONNX"),
        (other_onnx().SerializeToString(), "no edge file"),
        (outside(), "another file"),
        (outside_in_a_subgraph(), "another file"),
        (of_a_vendor(), "com.vendor"),
        (with_functions(), "functions"),
    ],
)
def test_other_files_are_refused_with_the_reason(content, told):
    with pytest.raises(EdgeFileError, match=told):
        EdgeSession(content)


def test_other_and_broken_pages_are_refused(edge):
    with pytest.raises(EdgeFileError, match=r"format 1.*reads 2"):
        EdgeSession(page(edge, format=1))
    with pytest.raises(EdgeFileError, match="broken"):
        EdgeSession(page(edge, ok_below="9", ng_from="1"))
    with pytest.raises(EdgeFileError, match="give 8 to 16"):
        EdgeSession(page(edge, bits=7))
    with pytest.raises(EdgeFileError, match="broken"):
        EdgeSession(with_metadata(edge.model, {KEY: "[]"}))
    disguised = with_metadata(other_onnx().SerializeToString(), read_outline(edge.model).metadata)
    with pytest.raises(EdgeFileError, match=r"operator set|takes"):
        EdgeSession(disguised)


def test_a_truncated_file_is_refused_wherever_it_ends(edge):
    for share in np.linspace(0, 0.999, 40):
        with pytest.raises(EdgeFileError):
            EdgeSession(edge.model[: int(len(edge.model) * share)])


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_not_crashed_on(content):
    with pytest.raises(EdgeFileError):
        read_facts(content)


CHILD = """
import resource, sys
import numpy as np
limit = 2 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from connectors.defects.edge_file import open_edge_file
from pathlib import Path
session = open_edge_file(Path(sys.argv[1]), threads=2, demand_record=True)
for side in (64, 256, 7071):
    judged = session.judge(np.zeros((side, side), np.uint8))
    assert judged.heat.shape == (side, side)
banned = sorted({"torch", "torchvision", "sklearn", "scipy", "onnx", "prefect", "mlflow", "PIL"}
                & {name.split(".")[0] for name in sys.modules})
peak = [l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")][0]
print(banned, int(peak) // 1024)
"""


def test_without_torch_and_within_two_gigabytes(edge, tmp_path):
    from connectors.defects.edge_file import write_edge_file

    write_edge_file(tmp_path / "line.onnx", edge)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "line.onnx")]
    env = unmeasured() | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    banned, peak = done.stdout.strip().rsplit(" ", 1)
    assert banned == "[]"
    assert int(peak) < 2048


def test_export_refuses_a_module_in_training_mode(scorer, thresholds):
    config = ExportConfig(inputs=("x",), outputs=("y",))
    with pytest.raises(ValueError, match="eval"):
        export_onnx(torch.nn.Linear(2, 2).train(), (torch.zeros(1, 2),), config)


def test_without_images_nothing_is_built(scorer, thresholds):
    with pytest.raises(ValueError, match="no images"):
        build_edge(scorer, thresholds, [])


@pytest.mark.long
def test_benchmark_runs_small(capsys):
    defects_latency.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "defects-latency"
    assert result["flips_fp32"] == 0
    assert 0 < result["rss_mb"] < 2048
    assert result["ms_p50"] > 0
    assert sum(result["verdicts_int8"].values()) == result["images"]
