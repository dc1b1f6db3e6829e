"""Boxes with types: precision on hand-made cases, geometry, fit on a generated line, export."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.sessions import open_session
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.boxes.average_precision import average_precisions, mean_average_precision
from tasks.defects.boxes.config import FACTS, TYPES, WEIGHTS, BoxConfig
from tasks.defects.boxes.detector import BoxDetector, brought
from tasks.defects.boxes.fit import brought_down, fit_boxes, with_boxes
from tasks.defects.boxes.fusion import non_maximum_suppression, weighted_box_fusion
from tasks.defects.boxes.iou import pairwise_iou
from tasks.defects.boxes.pieces import BoxPieceMaker
from tasks.defects.boxes.scorer import CELL, BoxScorer, BoxShape
from tasks.defects.boxes.train import assigned, generalised_iou
from tasks.defects.detect.config import DetectError
from tasks.defects.samples import Box, Sample
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks import defects_boxes

SMALL = BoxConfig(steps=3, batch=2, piece=32, flips=False)
SIDES = st.floats(1, 60)
BOXES = st.tuples(st.floats(0, 90), st.floats(0, 90), SIDES, SIDES).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)).eval()


@pytest.fixture(scope="module")
def line():
    return make_line(LineConfig(shape=(48, 64), ok=1, ng={"pit": 3, "scratch": 3}))


@pytest.fixture(scope="module")
def detector(line, net):
    return fit_boxes(line, SMALL, net)


def box(left, top, right, bottom, kind="pit", score=1.0):
    return Box(left, top, right, bottom, kind, score)


def spots(number, seed=0):
    """Images with one bright square or one dark bar each, easy to learn."""
    rng = np.random.default_rng(seed)
    found = []
    for place in range(number):
        pixels = rng.normal(120, 6, (64, 64))
        kind, (tall, wide), level = (("square", (16, 16), 60), ("bar", (8, 32), -60))[place % 2]
        top, left = int(rng.integers(64 - tall)), int(rng.integers(64 - wide))
        pixels[top : top + tall, left : left + wide] += level
        where = (Box(left, top, left + wide, top + tall, kind),)
        found.append(
            Sample(f"{place}.png", pixels.clip(0, 255).astype(np.uint8), "ng", boxes=where)
        )
    return found


# --- average precision ---------------------------------------------------------------------------


def test_precision_of_a_ranking_by_hand():
    # Hits at ranks 1, 3 of three labelled: precision 1 up to recall 1/3, then 2/3 up to 2/3.
    told = [[box(0, 0, 10, 10, score=0.9), box(50, 50, 60, 60, score=0.8)],
            [box(0, 0, 10, 10, score=0.7)]]  # fmt: skip
    true = [[box(0, 0, 10, 10)], [box(0, 0, 10, 10), box(20, 20, 40, 40)]]
    assert average_precisions(told, true)["pit"] == pytest.approx(1 / 3 + 2 / 9)


def test_precision_is_that_reached_at_this_recall_or_more():
    # False first, then two hits: 1/2, 2/3, and all points take 2/3.
    told = [[box(50, 50, 60, 60, score=0.9), box(0, 0, 10, 10, score=0.8),
             box(20, 20, 40, 40, score=0.7)]]  # fmt: skip
    true = [[box(0, 0, 10, 10), box(20, 20, 40, 40)]]
    assert average_precisions(told, true)["pit"] == pytest.approx(2 / 3)


def test_second_box_on_one_defect_is_false():
    told = [
        [box(0, 0, 10, 10, score=0.9), box(0, 0, 10, 9, score=0.8)],
        [box(0, 0, 9, 9, score=0.7)],
    ]
    true = [[box(0, 0, 10, 10)], [box(0, 0, 9, 9)]]
    assert average_precisions(told, true)["pit"] == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize(("right", "expected"), [(10, 1.0), (5.01, 1.0), (4.99, 0.0)])
def test_half_of_the_union_must_be_shared(right, expected):
    assert mean_average_precision([[box(0, 0, right, 10)]], [[box(0, 0, 10, 10)]]) == expected


def test_types_are_apart_and_unlabelled_ones_do_not_count():
    told = [[box(0, 0, 10, 10, "stain", 0.9), box(0, 0, 10, 10, "dent", 0.8)]]
    true = [[box(0, 0, 10, 10), box(0, 0, 10, 10, "stain")]]
    assert average_precisions(told, true) == {"pit": 0.0, "stain": 1.0}
    assert mean_average_precision(told, true) == 0.5


def test_equal_scores_count_as_told_at_once():
    hit, miss = box(0, 0, 10, 10, score=0.5), box(50, 50, 60, 60, score=0.5)
    for told in ([hit, miss], [miss, hit]):
        assert average_precisions([told], [[box(0, 0, 10, 10)]])["pit"] == 0.5


def test_precision_needs_labels_and_all_images():
    with pytest.raises(ValueError, match="no labelled box"):
        average_precisions([[]], [[]])
    with pytest.raises(ValueError, match="1 images judged, 2 labelled"):
        average_precisions([[]], [[], []])
    assert average_precisions([[]], [[box(0, 0, 1, 1)]]) == {"pit": 0.0}


# --- boxes ---------------------------------------------------------------------------------------


@given(st.lists(BOXES, min_size=1, max_size=8), st.floats(0.1, 0.9))
def test_kept_boxes_are_apart_and_each_dropped_one_lies_on_a_better_one(boxes, limit):
    edges = np.array(boxes)
    scores = np.linspace(1, 0.1, len(edges))
    kept = non_maximum_suppression(edges, scores, limit)
    shared = pairwise_iou(edges, edges)
    np.testing.assert_allclose(np.diag(shared), 1, atol=1e-6)
    assert (shared[np.ix_(kept, kept)] - np.eye(len(kept)) <= limit + 1e-9).all()
    for place in set(range(len(edges))) - set(kept.tolist()):
        assert any(shared[place, better] > limit for better in kept if better < place)


def test_fused_boxes_are_means_and_what_one_view_sees_counts_less():
    edges = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 60, 60]], float)
    means, scores = weighted_box_fusion(edges, np.array([0.9, 0.3, 0.8]), 0.5, 2)
    np.testing.assert_allclose(means, [[0, 0, 10, 10.5], [50, 50, 60, 60]])
    np.testing.assert_allclose(scores, [0.6, 0.4])


def test_generalised_overlap_by_hand():
    first = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    second = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    overlap, general = generalised_iou(first, second)
    assert overlap.tolist() == [1, 0]
    assert general.tolist() == pytest.approx([1, -1 / 3])


def test_cells_of_the_middle_propose_the_smaller_box_and_small_ones_are_never_left_out():
    edges = torch.tensor([[0.0, 0, 64, 64], [24, 24, 40, 40], [1, 1, 3, 3]])
    cells, boxes = assigned(edges, 8, 8)
    of = dict(zip(cells.tolist(), boxes.tolist(), strict=True))
    assert of[3 * 8 + 3] == of[4 * 8 + 4] == 1
    assert of[2 * 8 + 5] == 0
    assert of[0] == 2
    assert 7 not in of  # a corner of the large box is not its middle
    assert len(assigned(edges[:0], 8, 8)[0]) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pieces_show_what_their_boxes_say(seed):
    samples = [
        replace(one, pixels=np.where(_inside(one), 255, 0).astype(np.uint8)) for one in spots(4)
    ]
    config = BoxConfig(piece=64, batch=2, mosaic=0.5)
    pieces = BoxPieceMaker(samples, ("bar", "square"), config, np.random.default_rng(seed)).batch()
    for pixels, edges in zip(pieces.pixels, pieces.edges, strict=True):
        assert (edges >= 0).all()
        assert (edges <= 64).all()
        for left, top, right, bottom in edges.tolist():
            x, y = int((left + right) / 2), int((top + bottom) / 2)
            assert pixels[0, min(y, 63), min(x, 63)] > 0.25


def _inside(sample):
    found = np.zeros(sample.pixels.shape, bool)
    for one in sample.boxes:
        found[int(one.top) : int(one.bottom), int(one.left) : int(one.right)] = True
    return found


def test_places_of_zero_are_usual_boxes_around_their_cells():
    scorer = BoxScorer(BoxShape(net=DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)))
    scorer.usual.copy_(torch.tensor([20.0, 10.0]))
    edges = scorer.edges_of(torch.zeros(1, 4, 2, 3))
    assert edges.shape == (1, 6, 4)
    assert edges[0, 5].tolist() == [
        2.5 * CELL - 10,
        1.5 * CELL - 5,
        2.5 * CELL + 10,
        1.5 * CELL + 5,
    ]


# --- fit and judge -------------------------------------------------------------------------------


def test_learns_to_find_and_name(net):
    config = BoxConfig(steps=60, batch=4, piece=64, rate=5e-3, mosaic=0.2, evidence=0)
    with_flips = fit_boxes(spots(24), config, net)
    test = spots(16, seed=1)
    found = with_flips.judge([one.pixels for one in test])
    assert mean_average_precision(found, [one.boxes for one in test]) > 0.6
    assert {one.kind for boxes in found for one in boxes} == {"bar", "square"}


def test_judges_any_size_in_its_own_pixels(detector):
    rng = np.random.default_rng(0)
    shapes = [(8, 8), (48, 64), (61, 33, 3), (9, 700), (1100, 90, 3)]
    images = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in shapes]
    eager = BoxDetector(detector.scorer, detector.types, replace(SMALL, least=0.0), {})
    for pixels, boxes in zip(images, eager.judge(images), strict=True):
        assert 0 < len(boxes) <= SMALL.most
        assert [one.score for one in boxes] == sorted((b.score for b in boxes), reverse=True)
        for one in boxes:
            assert 0 <= one.left < one.right <= pixels.shape[1]
            assert 0 <= one.top < one.bottom <= pixels.shape[0]
            assert 0 <= one.score <= 1
    assert eager.judge([]) == []


def test_thin_large_images_keep_their_own_pixels():
    small, zooms = brought(np.zeros((9, 700), np.uint8), 512)
    assert small.shape == (1, 3, 8, 512)
    assert zooms == (512 / 700, 8 / 9)


def test_mirrored_image_gives_mirrored_boxes(detector):
    flips = BoxDetector(detector.scorer, None, replace(SMALL, flips=True, least=0.0), {})
    pixels = np.random.default_rng(3).integers(0, 255, (48, 64), dtype=np.uint8)
    one, other = flips.judge([pixels, np.ascontiguousarray(pixels[:, ::-1])])
    assert len(one) == len(other) > 0
    assert other[0].left == pytest.approx(64 - one[0].right, abs=1e-3)
    assert other[0].score == pytest.approx(one[0].score, abs=1e-5)


def test_bytes_and_back_judge_alike(detector, line):
    images = [sample.pixels for sample in line]
    again = BoxDetector.from_bytes(detector.to_bytes())
    assert again.judge(images) == detector.judge(images)
    assert again.provenance == detector.provenance
    assert again.provenance["images"] == 7


def test_same_seed_same_detector(line, net, detector):
    assert fit_boxes(line, SMALL, net).to_bytes() == detector.to_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda files: files.pop(WEIGHTS), "needs boxes.safetensors"),
        (lambda files: files.update({WEIGHTS: b"junk"}), "not the files"),
        (lambda files: files.update({FACTS: b"{}"}), "not the files"),
        (lambda files: files.update({TYPES: b"junk"}), "not the files"),
        (lambda files: files.update({FACTS: json.dumps({"format": "x"}).encode()}), "format 'x'"),
    ],
)
def test_broken_files_are_told(detector, spoil, said):
    files = detector.to_bytes()
    spoil(files)
    with pytest.raises(DetectError, match=said):
        BoxDetector.from_bytes(files)


def test_no_box_at_all_is_told(line, net):
    bare = [replace(sample, boxes=(), mask=None) for sample in line]
    with pytest.raises(DetectError, match="none of 7 images has a box or a mask"):
        fit_boxes(bare, SMALL, net)


def test_one_type_will_do_and_defects_without_boxes_are_left_aside(line, net):
    pits = [sample for sample in line if sample.kind == "pit"]
    fitted = fit_boxes([*pits, replace(line[-1], boxes=(), mask=None)], SMALL, net)
    assert fitted.types is None
    assert fitted.provenance["left_aside"] == 1
    assert set(fitted.to_bytes()) == {WEIGHTS, FACTS}


def test_masks_give_boxes_and_boxes_are_cut_at_the_image():
    mask = np.zeros((20, 20), bool)
    mask[2:5, 3:9] = True
    sample = Sample("a", np.zeros((20, 20), np.uint8), "ng", "pit", mask)
    assert with_boxes(sample).boxes == (Box(3, 2, 9, 5, "pit"),)
    outside = replace(sample, boxes=(Box(-5, 2, 9, 50), Box(30, 30, 40, 40)))
    assert with_boxes(outside).boxes == (Box(0, 2, 9, 20, "pit"),)


def test_large_images_are_brought_down_with_their_boxes():
    sample = Sample("a", np.zeros((100, 400, 3), np.uint8), "ng", boxes=(Box(40, 20, 80, 60),))
    small = brought_down(sample, 100)
    assert small.pixels.shape == (25, 100, 3)
    assert small.boxes == (Box(10, 5, 20, 15),)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"piece": 40}, {"rate": 0}, {"evidence": -1}, {"mosaic": 2}, {"side": 8}],
)
def test_wrong_settings_are_told(wrong):
    with pytest.raises(ValueError, match="give"):
        BoxConfig(**wrong)


def test_scorer_exports_to_onnx(detector):
    pixels = torch.rand(2, 3, 48, 64)
    config = ExportConfig(inputs=("pixels",), outputs=("edges", "score", "kind"))
    scorer = copy.deepcopy(detector.scorer)
    torch.nn.init.normal_(scorer.types.weight, std=2)  # scores that are well apart
    torch.nn.init.normal_(scorer.places.weight, std=0.2)
    session = open_session(export_onnx(scorer, [pixels], config), threads=1)
    edges, score, kind = session.run(None, {"pixels": pixels.numpy()})
    with torch.inference_mode():
        own = scorer(pixels)
    np.testing.assert_allclose(score, own.score.numpy(), atol=1e-5)
    # Ties may be told in another order.
    clear = np.abs(np.diff(score, axis=1, append=-1)) > 1e-5
    clear &= np.abs(np.diff(score, axis=1, prepend=2)) > 1e-5
    np.testing.assert_array_equal(kind[clear], own.kind.numpy()[clear])
    np.testing.assert_allclose(edges[clear], own.edges.numpy()[clear], atol=1e-2)
    assert clear.mean() > 0.5


@pytest.mark.long
def test_benchmark_smoke(capsys):
    defects_boxes.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 <= result["map50"] <= 1
    assert 0.5 <= result["template_auroc"] <= 1
