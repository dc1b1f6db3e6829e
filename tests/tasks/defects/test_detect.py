"""The detector from none, few and many labels, by generated lines and a tiny net."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from connectors.defects.inspect.central.ensemble import EnsembleInspector, Member
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.detect.config import DetectConfig, DetectError
from tasks.defects.detect.detector import FACTS, WEIGHTS, Detector
from tasks.defects.detect.far import SQUARE, by_squares, squares
from tasks.defects.detect.finetune import loss_of
from tasks.defects.detect.fit import fit
from tasks.defects.detect.held_out import folds_of
from tasks.defects.detect.memory import core_set, squared_distance
from tasks.defects.detect.pieces import PieceMaker, Pieces, is_large, region
from tasks.defects.detect.scorer import STATISTICS, TRAINED, heat
from tasks.defects.detect.seams import with_seam
from tasks.defects.detect.self_train import defective_share, guess
from tasks.defects.detect.synthetic import with_defect
from tasks.defects.detect.weigh import weigh
from tasks.defects.judgement import UNKNOWN, Judgement, Thresholds
from tasks.defects.samples import Box, Sample
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks import defects_anomaly

SMALL = DetectConfig(steps=0, piece=32, batch=4, memory=24, projected=8, folds=2)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)).eval()


@pytest.fixture(scope="module")
def line():
    return make_line(LineConfig(shape=(64, 80), ok=8, ng={"pit": 3, "scratch": 3}))


def normals(line):
    return [sample for sample in line if sample.label == "ok"]


def defects(line):
    return [sample for sample in line if sample.label == "ng"]


def same(first, second):
    return all(
        a.score == b.score and np.array_equal(a.heat, b.heat) and a.kinds == b.kinds
        for a, b in zip(first, second, strict=True)
    )


def test_one_call_for_no_few_and_many_labels(line, net):
    images = [sample.pixels for sample in line]
    for labels in (0, 3, 6):
        detector = fit([*normals(line), *defects(line)[:labels]], SMALL, net)
        found = detector.judge(images)
        assert all(0 <= one.score <= 1 and one.verdict == "REVIEW" for one in found)
        assert all(one.heat.shape == (64, 80) for one in found)
        assert all(one.heat.min() >= 0 and one.heat.max() <= 1 for one in found)
        assert detector.provenance["defects"] == labels
        assert ("auroc" in detector.provenance["held_out"]) == (labels > 0)
        assert detector.scorer.kinds == (*("pit", "scratch")[: (labels + 2) // 3], UNKNOWN)


def test_it_finds_what_it_was_taught():
    line = make_line(
        LineConfig(shape=(64, 64), ok=16, ng={"pit": 12}, strength=(8, 12), texture="cast", seed=3)
    )
    ok, ng = normals(line), defects(line)
    detector = fit([*ok[:8], *ng[:6]], replace(SMALL, piece=64))
    good, bad = (detector.judge([s.pixels for s in each]) for each in (ok[8:], ng[6:]))
    assert np.mean([b.score > g.score for b in bad for g in good]) > 0.8
    for one, sample in zip(bad, ng[6:], strict=True):
        assert one.heat[sample.mask].mean() > one.heat[~sample.mask].mean()


def test_training_moves_the_net_of_the_detector_alone(line, net):
    before = {name: one.clone() for name, one in net.state_dict().items()}
    detector = fit(line, replace(SMALL, steps=4), net)
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())
    moved = detector.scorer.net.state_dict()
    assert any(not torch.equal(one, before[name]) for name, one in moved.items())
    assert detector.provenance["held_out"]["loss"] > 0
    assert not detector.scorer.training


def test_the_same_samples_give_the_same_detector(line, net):
    first, second = (fit(line, replace(SMALL, steps=2), net) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


@pytest.mark.parametrize("limits", [(0.2, 0.8), (0.6, math.inf), (-math.inf, 0.4)])
def test_bytes_hold_all_of_a_detector(line, net, limits):
    detector = replace(fit(line, SMALL, net), thresholds=Thresholds(*limits))
    json.loads(detector.to_bytes()[FACTS], parse_constant=pytest.fail)  # one side promised alone
    read = Detector.from_bytes(detector.to_bytes())
    images = [sample.pixels for sample in line]
    assert same(detector.judge(images), read.judge(images))
    assert read.config == SMALL
    assert read.thresholds == detector.thresholds
    assert read.provenance == detector.provenance


def test_bytes_that_are_no_detector_are_refused(line, net):
    files = fit(normals(line), SMALL, net).to_bytes()
    facts = json.loads(files[FACTS])
    for wrong in (
        {FACTS: files[FACTS]},
        files | {WEIGHTS: b"no"},
        files | {FACTS: b"[]"},
        files | {FACTS: json.dumps(facts | {"format": "other"}).encode()},
        files | {FACTS: json.dumps(facts | {"shape": facts["shape"] | {"memory": 3}}).encode()},
    ):
        with pytest.raises(DetectError, match=r"needs|format|not the files"):
            Detector.from_bytes(wrong)


def test_boxes_and_bare_labels_teach_too(line, net):
    rows, columns = np.nonzero(defects(line)[0].mask)
    box = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    boxed = replace(defects(line)[0], mask=None, boxes=(box,))
    bare = replace(defects(line)[4], mask=None, boxes=())
    assert region(boxed)[defects(line)[0].mask].all()
    assert region(bare) is None
    for steps in (0, 2):
        detector = fit([*normals(line), boxed, bare], replace(SMALL, steps=steps), net)
        assert 0 <= detector.judge([bare.pixels])[0].score <= 1


def test_gray_and_colour_of_the_same_picture_are_judged_alike(line, net):
    mixed = [replace(s, pixels=np.repeat(s.pixels[..., None], 3, 2)) for s in line[::2]]
    detector = fit([*mixed, *line[1::2]], SMALL, net)
    gray, colour = detector.judge([line[0].pixels, mixed[0].pixels])
    assert gray.score == pytest.approx(colour.score, abs=1e-6)


def test_images_of_any_size(line, net):
    detector = fit(line, replace(SMALL, side=128), net)
    rng = np.random.default_rng(0)
    for shape in ((8, 8), (8, 200), (31, 17), (300, 140), (129, 128)):
        found = detector.judge([rng.integers(0, 256, shape, np.uint8)])[0]
        assert found.heat.shape == shape
        assert np.isfinite(found.heat).all()
    for level in (0, 255):
        assert np.isfinite(detector.judge([np.full((40, 40), level, np.uint8)])[0].score)
    with pytest.raises(DetectError, match=r"image 1: .*at least 8"):
        detector.judge([line[0].pixels, np.zeros((7, 40), np.uint8)])
    with pytest.raises(DetectError, match="give uint8"):
        detector.judge([np.zeros((20, 20), np.float32)])


def test_a_defect_in_one_tile_decides_about_a_large_image(line, net):
    detector = fit(line, replace(SMALL, side=128), net)
    rng = np.random.default_rng(1)
    large = rng.integers(90, 110, (200, 300), np.uint8)
    tiles = [large[:128, :128], large[-128:, -128:]]
    assert detector.judge([large])[0].score >= max(one.score for one in detector.judge(tiles))


@pytest.mark.parametrize(
    ("pick", "match"),
    [
        (lambda line: [], "0 normal images of 0 parts"),
        (lambda line: normals(line)[:1], "1 normal images of 1 parts"),
        (defects, "0 normal images of 0 parts, 6 defective"),
        (lambda line: [replace(s, part="a") for s in normals(line)], "8 normal images of 1 parts"),
        (lambda line: [*line, line[0]], "two samples are named"),
        (
            lambda line: [*line, Sample("small", np.zeros((7, 9), np.uint8), "ok")],
            "small: .*at least 8",
        ),
    ],
)
def test_samples_that_no_detector_can_be_made_of(line, net, pick, match):
    with pytest.raises(DetectError, match=match):
        fit(pick(line), SMALL, net)


def test_two_normal_images_are_enough(line, net):
    detector = fit(normals(line)[:2], SMALL, net)
    assert detector.provenance["held_out"].keys() == {"auroc_synthetic"}


def test_self_training_is_gated_and_recorded(line, net):
    bare = [replace(s, label=None, kind="", mask=None, boxes=()) for s in line]
    unlabelled = [replace(s, name=f"u{s.name}", part=f"u{s.part}") for s in bare]
    plain = fit(line, SMALL, net)
    told = fit([*line, *unlabelled], replace(SMALL, self_train=1), net)
    (record,) = told.provenance["self_training"]
    assert told.provenance["unlabelled"] == len(line)
    assert record["kept"] == (record["auroc"] >= plain.provenance["held_out"]["auroc"])
    assert record["normals"] + record["defects"] <= len(unlabelled)
    images = [sample.pixels for sample in line]
    if not record["kept"]:
        assert same(told.judge(images), plain.judge(images))


def test_unlabelled_images_of_labelled_parts_are_left_alone(line, net):
    copied = [replace(s, name=f"u{s.name}", label=None, kind="", mask=None, boxes=()) for s in line]
    told = fit([*line, *copied], replace(SMALL, self_train=1), net)
    assert told.provenance["self_training"] == []


def test_guesses_follow_the_share_of_defects():
    scores = np.r_[np.full(5, 0.999), np.full(95, 0.001)]
    assert defective_share(scores) == pytest.approx(0.05, abs=0.01)
    pixels = np.zeros((20, 20), np.uint8)
    heat = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    samples = [Sample(f"s{i}", pixels) for i in range(100)]
    guessed = guess(samples, [Judgement(float(score), heat) for score in scores])
    assert [one.name for one in guessed.defects] == [f"s{i}" for i in range(5)]
    assert len(guessed.normals) == 95
    assert all(one.mask.sum() == 4 for one in guessed.defects)
    unsure = guess(samples, [Judgement(0.5, heat) for _ in samples])
    assert not unsure.normals
    assert not unsure.defects


def test_parts_never_straddle_folds():
    rng = np.random.default_rng(0)
    pixels = np.zeros((8, 8), np.uint8)
    good = [Sample(f"g{i}", pixels, "ok", part=f"p{i // 3}") for i in range(20)]
    bad = [Sample(f"b{i}", pixels, "ng", part=f"p{i // 2}") for i in range(10)]
    folds = folds_of(good, bad, 4, rng)
    parts = [{s.part for s in (*ok, *ng)} for ok, ng in folds]
    assert sum(len(each) for each in parts) == len(set().union(*parts))
    held = [sample.name for ok, ng in folds for sample in (*ok, *ng)]
    assert sorted(held) == sorted(sample.name for sample in good + bad)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_synthetic_defects_stay_in_range_and_inside_their_mask(seed):
    rng = np.random.default_rng(seed)
    surface = (0.4 + 0.1 * rng.random((48, 64, 1))).astype(np.float32)
    made, mask = with_defect(surface, surface[::-1], rng)
    assert made.shape == surface.shape
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1
    assert not mask.any() or np.abs(made - surface)[mask].mean() > 0


def test_pieces_show_what_their_target_says(line):
    maker = PieceMaker(normals(line), defects(line), SMALL, np.random.default_rng(0))
    for _ in range(5):
        batch = maker.batch()
        shape = batch.pixels.shape[2:]
        assert batch.pixels.shape == (4, 3, *shape)
        assert 16 <= min(shape) <= max(shape) <= 48
        assert batch.target.shape == (4, 1, shape[0] // 4, shape[1] // 4)
        assert torch.equal(batch.defective, batch.target.flatten(1).amax(1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_areas_of_another_finish_keep_to_their_mask(seed):
    rng = np.random.default_rng(seed)
    surface = (0.4 + 0.1 * rng.random((64, 48, 1))).astype(np.float32)
    made, mask = with_seam(surface, surface[::-1], rng)
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1
    assert mask.mean() <= 0.5
    if mask.any():
        moved = np.abs(made - surface)[..., 0]
        assert moved[mask].mean() > moved[~mask].mean()
    else:
        assert np.array_equal(made, surface)


def test_what_lies_deep_is_an_area():
    mask = np.zeros((64, 64), np.bool_)
    mask[:, 10:20] = True
    assert not is_large(mask)
    mask[:40, 10:60] = True
    assert is_large(mask)
    assert is_large(np.ones((32, 32), np.bool_))
    assert not is_large(np.zeros((32, 32), np.bool_))


def test_each_map_is_taught_its_own_defects():
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, 2:4, 2:4] = 1
    pieces = Pieces(
        torch.zeros(2, 3, 64, 64), target, torch.ones(2), torch.ones(2), torch.tensor([False, True])
    )
    logits = torch.zeros(2, 2, 16, 16, requires_grad=True)
    loss_of(logits, pieces).backward()
    pulled = logits.grad[:, :, 2:4, 2:4]
    assert (pulled[[0, 1], [0, 1]] < 0).all()  # its own defect: up
    assert (pulled[[0, 1], [1, 0]] == 0).all()  # the other map's: neither


def test_a_trained_net_decides_by_the_larger_of_its_two_maps(line, net):
    scorer = fit(line, replace(SMALL, steps=4), net).scorer
    found = scorer.usual.repeat(3, 1)
    spot, area = (STATISTICS.index(name) for name in ("spot_4", "area_0.05"))
    for row, place in ((1, spot), (2, area)):  # each counts by its spread on normal images
        found[row, place] += 2 * scorer.unusual[place]
    none, one, other = scorer.decide(found).tolist()
    assert one == pytest.approx(other)
    assert one > none
    found[1, area] += scorer.unusual[area]
    assert scorer.decide(found)[1] == one


def test_core_set_covers_and_distances_are_exact():
    patches = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    few, more = core_set(patches, 5, 0), core_set(patches, 50, 0)
    assert len(set(more.tolist())) == 50
    assert torch.equal(more[:5], few)
    apart = torch.cdist(patches, patches[few]).amin(1).square()
    assert torch.allclose(squared_distance(patches, patches[few]), apart, atol=1e-4)
    assert squared_distance(patches, patches[more]).max() < apart.max()


def test_weights_are_never_negative_and_follow_what_tells():
    rng = np.random.default_rng(0)
    defective = np.arange(60) % 3 == 0
    values = rng.normal(size=(60, 3))
    values[:, 0] += 3 * defective
    values[:, 1] -= 3 * defective  # against the rule that more is worse
    found = weigh(values, defective, np.ones(60))
    assert (found.weight >= 0).all()
    assert found.weight[0] > 2 * found.weight[2]
    assert found.weight[1] < 1e-6


def test_a_value_that_never_moves_weighs_nothing():
    defective = np.arange(20) % 2 == 0
    values = np.stack([np.full(20, -3.0), defective + 0.1 * np.arange(20)], axis=1)
    found = weigh(values, defective, np.ones(20))
    assert found.weight[0] == 0
    assert found.weight[1] > 0


def test_config_names_the_fix():
    for wrong, match in (
        ({"steps": -1}, "0 .none. or more"),
        ({"piece": 40}, "multiple of 16"),
        ({"real": 0.8, "synthetic": 0.4}, "at most 1 together"),
        ({"rate": 0.0}, "above 0"),
        ({"folds": 1}, "at least 2"),
        ({"side": 100}, "multiple of 16"),
    ):
        with pytest.raises(ValueError, match=match):
            DetectConfig(**wrong)


def test_draws_are_fixed_and_label_each_part_once():
    draws = defects_anomaly.read_draws()
    assert len(draws) == 10
    for ok, ng in draws:
        assert (len(set(ok)), len(set(ng))) == (40, 10)
        assert all(name.startswith("MT_Free/") for name in ok)
        assert not any(name.startswith("MT_Free/") for name in ng)


@pytest.mark.long
def test_benchmark_at_its_small_size_and_merged(capsys, tmp_path):
    defects_anomaly.main(["--smoke", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    files = []
    for draw in "01":  # as two runs of one draw each would tell it
        files.append(tmp_path / f"{draw}.json")
        one = {key: {draw: each[draw]} for key, each in told["each"].items()}
        files[-1].write_text("text before\n" + json.dumps({"each": one}))
    defects_anomaly.main(["--json", "--merge", *map(str, files)])
    merged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(merged[key] == told[key] for key in ("n0", "n4", "n4_centre", "patchcore", "each"))
    with pytest.raises(ValueError, match=r"draw 0 is in another file"):
        defects_anomaly.merged([files[0], files[0]])
    assert {"image_auroc", "pixel_auroc", "aupro", "sd"} <= told["n0"].keys()
    assert 0 <= told["patchcore_auroc"] <= 1


def test_the_benchmark_asks_in_four_positions_as_the_central_machine(line, net):
    detector = fit(line, SMALL, net)

    class Whole:
        thresholds, digest, bits = Thresholds(0.3, 0.7), "", 16

        def judge(self, pixels):
            return detector.judge([pixels])[0]

    central = EnsembleInspector([Member(Whole(), log_odds=True)])
    asked = defects_anomaly._Asked(detector)
    with torch.inference_mode():
        for sample in line[:3]:
            score, _ = asked.as_the_centre(sample.pixels, dict)
            assert score == pytest.approx(central.score(sample.pixels), abs=1e-5)


def test_borders_of_the_image_are_seen_as_normal_surface():
    """Else only defects near a border would show it, and it would be taken for one."""
    framed = np.full((200, 300), 60, np.uint8)
    framed[0], framed[-1], framed[:, 0], framed[:, -1] = 255, 255, 255, 255
    config = DetectConfig(real=0.0, synthetic=0.0, piece=64)
    maker = PieceMaker([Sample("a", framed, "ok")], [], config, np.random.default_rng(0))
    pixels = torch.cat([maker.batch().pixels[:, 0].amax(dim=(1, 2)) for _ in range(40)])
    middle = torch.cat([maker.batch().pixels[:, 0].flatten(1).median(1)[0] for _ in range(40)])
    share = float((pixels > 2 * middle.median()).float().mean())
    assert 0.4 < share < 0.9


def test_a_spot_stays_sharp_in_the_heat_and_an_area_is_a_mean():
    maps = torch.full((1, len(TRAINED), 20, 30), -9.0)
    maps[0, TRAINED.index("spot"), 3, 4] = maps[0, TRAINED.index("area"), 12, 20] = 72.0
    found = heat(maps, torch.eye(len(TRAINED)))[0, 0]
    assert found[3, 4] == 72
    assert found[12, 20] == pytest.approx(-9 + 81 / 81)
    assert found[8, 16] == pytest.approx(-9 + 81 / 81)
    assert found[7, 16] == -9
    even = torch.full((1, len(TRAINED), 2, 3), 0.5)
    assert torch.allclose(heat(even, torch.eye(len(TRAINED))), torch.tensor(0.5))


def test_squares_of_the_far_look_are_judged_by_themselves_and_put_back_in_place():
    assert [squares(side) for side in (8, 96, 256, 287, 288, 480, 1024)] == [1, 1, 1, 1, 2, 3, 5]
    assert by_squares(lambda small: small[:, :, ::4, ::4], torch.ones(1, 3, 64, 300)).shape[2:] == (
        8,
        48,
    )
    image = torch.rand(2, 3, 4 * SQUARE, 2 * SQUARE)  # two squares, one below the other
    seen = []

    def judge(pixels):
        seen.append(pixels)
        return functional.avg_pool2d(pixels - pixels.mean(dim=(1, 2, 3), keepdim=True), 4)

    maps = by_squares(judge, image)
    halves = functional.avg_pool2d(image, 2).split(SQUARE, dim=2)
    expected = torch.cat([judge(half) for half in halves], dim=2)
    assert seen[0].shape == (4, 3, SQUARE, SQUARE)
    torch.testing.assert_close(maps, expected)
