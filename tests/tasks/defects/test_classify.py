"""Types of defects: few labels, odd images, unknown types, self-training, packing."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tasks.defects.classify.colour import colour
from tasks.defects.classify.descriptors import FAMILIES, describe
from tasks.defects.classify.discriminant import fit_discriminant
from tasks.defects.classify.ensemble import deal_folds, fit_ensemble, fit_temperature
from tasks.defects.classify.fit import TypesConfig, fit_types
from tasks.defects.classify.novelty import learn_novelty, with_unknown
from tasks.defects.classify.pack import TypesFileError, packed, unpacked
from tasks.defects.classify.self_training import SelfTrainingConfig, compress, self_train
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Sample, SampleError
from tests.benchmarks import defects_classify

SIDE = 40


def texture(kind: str, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Rows, blobs, grain or edges: what the eye tells apart at once."""
    noise = rng.normal(0, 12, (side, side))
    place = np.arange(side) + rng.uniform(0, 8)
    wave = 40 * np.sin(place * 2 * np.pi / rng.uniform(5, 7))
    pattern = {
        "rows": wave[:, None],
        "blobs": gaussian_filter(rng.normal(0, 400, (side, side)), 3),
        "grain": 3 * noise,
        "edges": 60 * np.sign(wave[:, None] * wave[None]),
    }[kind]
    return np.clip(rng.uniform(90, 160) + pattern + noise, 0, 255).astype(np.uint8)


def labelled(number: int, kinds: tuple[str, ...], seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [Sample(f"{k}_{i}", texture(k, rng), "ng", k) for k in kinds for i in range(number)]


@pytest.fixture(scope="module")
def cache() -> dict:
    return {}


def test_names_types_and_shows_samples_like_it(cache):
    fitted = fit_types(labelled(6, ("rows", "blobs")), cache=cache)
    more = labelled(8, ("rows", "blobs"), seed=1)
    judged = fitted.judge([sample.pixels for sample in more], cache)
    assert [j.kind for j in judged].count(UNKNOWN) == 0  # 12 labels cannot promise 5 %
    assert [j.kind for j in judged] == [sample.kind for sample in more]
    for sample, judgement in zip(more, judged, strict=True):
        assert sum(judgement.probabilities.values()) == pytest.approx(1)
        assert set(judgement.probabilities) == {"rows", "blobs", UNKNOWN}
        assert len(judgement.nearest) == 3
        assert judgement.nearest[0].startswith(sample.kind)


def test_type_that_was_never_labelled_is_unknown(cache):
    fitted = fit_types(labelled(8, ("rows", "blobs", "grain")), cache=cache)
    new = fitted.judge([s.pixels for s in labelled(8, ("edges",), seed=2)], cache)
    known = fitted.judge([s.pixels for s in labelled(8, ("rows", "blobs", "grain"), seed=3)], cache)
    assert sum(j.kind == UNKNOWN for j in new) >= 6
    assert sum(j.kind == UNKNOWN for j in known) <= 4
    never = fit_types(labelled(12, ("rows", "blobs")), TypesConfig(false_unknown=0), cache=cache)
    assert all(j.probabilities[UNKNOWN] == 0 for j in never.judge([new_pixels()], cache))


def new_pixels() -> np.ndarray:
    return texture("edges", np.random.default_rng(5))


@pytest.mark.parametrize("counts", [{"rows": 1, "blobs": 1}, {"rows": 1}, {"rows": 4},
                                    {"rows": 1, "blobs": 3, "grain": 5}])  # fmt: skip
def test_any_number_of_labels_will_do(counts, cache):
    samples = [s for k, n in counts.items() for s in labelled(n, (k,))]
    fitted = fit_types(samples, cache=cache)
    judged = fitted.judge([s.pixels for s in labelled(2, tuple(counts), seed=4)], cache)
    for judgement in judged:
        values = np.array(list(judgement.probabilities.values()))
        assert np.isfinite(values).all()
        assert values.sum() == pytest.approx(1)
        assert len(judgement.nearest) == min(3, len(samples))
    if len(counts) > 1:
        right = [j.kind == s.kind for j, s in
                 zip(judged, labelled(2, tuple(counts), seed=4), strict=True)]  # fmt: skip
        assert np.mean(right) >= 0.75


def test_images_of_any_size_and_colour(cache):
    rng = np.random.default_rng(7)
    fitted = fit_types(labelled(4, ("rows", "blobs")), cache=cache)
    odd = [
        np.zeros((1, 1), np.uint8),
        np.full((8, 300, 3), 255, np.uint8),
        rng.integers(0, 256, (700, 9), np.uint8),
        rng.integers(0, 256, (30, 30, 3), np.uint8),
    ]
    for judgement in fitted.judge(odd):
        assert np.isfinite(list(judgement.probabilities.values())).all()
    assert fitted.judge([]) == []


def test_colour_alone_tells_types_apart():
    rng = np.random.default_rng(8)

    def stain(channel: int) -> np.ndarray:
        pixels = rng.integers(90, 130, (SIDE, SIDE, 1), np.uint8).repeat(3, axis=2)
        pixels[:, :, channel] += 40
        return pixels

    samples = [
        Sample(f"{kind}_{i}", stain(channel), "ng", kind)
        for kind, channel in (("red", 0), ("blue", 2))
        for i in range(5)
    ]
    fitted = fit_types(samples)
    assert "colour" in fitted.ensemble.members
    assert [j.kind for j in fitted.judge([stain(0), stain(2)])] == ["red", "blue"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (8, 300), (1_100, 1_000)])
def test_colour_is_counted_as_numpy_would(shape, monkeypatch):
    rng = np.random.default_rng(sum(shape))
    pixels = rng.integers(0, 256, (*shape, 3), np.uint8) // (1, 2, 3)
    pixels = pixels.astype(np.uint8)
    red, green, blue = np.moveaxis(pixels.astype(np.float64), 2, 0)
    row = []
    for opponent in (red - green, (red + green) / 2 - blue):
        row += [opponent.mean(), opponent.std(), *np.percentile(opponent, (1, 10, 50, 90, 99))]
    np.testing.assert_allclose(colour(pixels), row, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("tasks.defects.classify.colour.AT_ONCE", 700)
    np.testing.assert_allclose(colour(pixels), row, rtol=1e-5, atol=1e-5)


def test_colour_of_a_large_image_takes_no_more_memory_than_that():
    """As floats, with copies for the percentiles, it took ten times as much."""
    pixels = np.zeros((3_000, 3_000, 3), np.uint8)
    tracemalloc.start()
    colour(pixels)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < pixels.nbytes


def test_refuses_what_it_cannot_learn_from():
    with pytest.raises(SampleError, match="set kind"):
        fit_types([Sample("a", np.zeros((9, 9), np.uint8))])
    with pytest.raises(SampleError, match="kept for"):
        fit_types([Sample("a", np.zeros((9, 9), np.uint8), "ng", UNKNOWN)])
    with pytest.raises(ValueError, match="false_unknown"):
        TypesConfig(false_unknown=1.0)
    with pytest.raises(ValueError, match="confidence"):
        SelfTrainingConfig(confidence=0.0)


def test_packed_classifier_judges_alike_and_spoilt_bytes_are_refused(cache):
    fitted = fit_types(labelled(6, ("rows", "blobs")), cache=cache)
    content = packed(fitted)
    again = unpacked(content)
    pixels = [new_pixels(), texture("rows", np.random.default_rng(9))]
    assert again.judge(pixels) == fitted.judge(pixels)
    for bad in (b"", b"PK", content[: len(content) // 2], spoilt(content, "format", "other"),
                spoilt(content, "kinds", ["rows"]),
                spoilt(content, "members", {"x": 1.0})):  # fmt: skip
        with pytest.raises(TypesFileError):
            unpacked(bad)


@pytest.mark.parametrize("entry", ["huge", "compressed", "encrypted", "nested"])
def test_archives_made_to_harm_are_refused(cache, entry):
    with zipfile.ZipFile(
        io.BytesIO(packed(fit_types(labelled(2, ("rows", "blobs")), cache=cache)))
    ) as whole:
        held = {name: whole.read(name) for name in whole.namelist()}
    kind = zipfile.ZIP_DEFLATED if entry == "compressed" else zipfile.ZIP_STORED
    if entry == "huge":  # a shape of 8 TB in a header of 100 bytes
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
        held["usual.npy"] = header.getvalue()
    if entry == "nested":
        held["notes.npy"] = npy(np.frombuffer(b"[" * 100_000, np.uint8))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as made:
        for name, data in held.items():
            made.writestr(name, data)
    content = bytearray(buffer.getvalue())
    if entry == "compressed":
        content[300:400] = bytes(100)
    if entry == "encrypted":
        for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            at = content.find(mark)
            content[at + place] |= 1
    with pytest.raises(TypesFileError):
        unpacked(bytes(content))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def spoilt(content: bytes, key: str, value: object) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    notes = json.loads(arrays["notes"].tobytes()) | {key: value}
    arrays["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_unlabelled_images_are_learned_from_and_say_so(cache):
    few = labelled(4, ("rows", "blobs", "grain"))
    rest = labelled(10, ("rows", "blobs", "grain"), seed=6)
    images = [s.pixels for s in rest]
    fitted = fit_types(few, unlabelled=images, cache=cache)
    right = [j.kind in {s.kind, UNKNOWN} for j, s in
             zip(fitted.judge(images, cache), rest, strict=True)]  # fmt: skip
    assert np.mean(right) >= 0.95
    assert not fit_types(few, unlabelled=images[:3], cache=cache).self_trained
    if fitted.self_trained:
        assert unpacked(packed(fitted)).self_trained


def test_self_training_needs_one_sure_image():
    rng = np.random.default_rng(1)
    own, more = rng.normal(size=(6, 4)), rng.normal(size=(30, 4))
    targets = np.array([0, 0, 0, 1, 1, 1])
    unsure = np.log(np.full((30, 2), 0.5))
    found = self_train({"a": own}, targets, {"a": more}, unsure, SelfTrainingConfig())
    assert found is None


def test_enlarged_discriminant_says_what_the_small_one_says():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 20)).astype(np.float32)
    by = compress(features)
    small = by.small(features)
    targets = np.arange(80) % 3
    found = fit_discriminant(small, targets, 3, np.ones(80))
    whole = by.enlarged(found)
    np.testing.assert_allclose(whole.distances(features), found.distances(small), rtol=1e-3)


def test_discriminant_is_that_of_the_shrunk_covariance():
    """Against the plain formula, with scikit-learn's Ledoit-Wolf shrinkage."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    rng = np.random.default_rng(3)
    targets = np.repeat([0, 1, 2], 20)
    features = rng.normal(size=(60, 7)) + targets[:, None] * np.linspace(0, 1, 7)
    found = fit_discriminant(features, targets, 3, np.ones(60))
    unit = (features - found.centre) / found.scale
    means = np.stack([unit[targets == k].mean(axis=0) for k in range(3)])
    within = unit - means[targets]
    shrinkage = ledoit_wolf_shrinkage(within, assume_centered=True)
    level = (within**2).mean()
    sigma = (1 - shrinkage) * within.T @ within / 57 + shrinkage * level * np.eye(7)
    logits = unit @ np.linalg.solve(sigma, means.T)
    logits -= 0.5 * np.einsum("kd,dk->k", means, np.linalg.solve(sigma, means.T))
    mine = -0.5 * found.distances(features)
    np.testing.assert_allclose(mine - mine[:, :1], logits - logits[:, :1], atol=1e-6)


def test_folds_keep_parts_together_and_unknown_wins_where_rare():
    targets = np.array([0, 0, 0, 1, 1, 1])
    folds = deal_folds(targets, ["a", "a", "b", "c", "d", "c"], 3)
    assert folds[0] == folds[1]
    assert folds[3] == folds[5]
    p_values = np.array([0.01, 0.05, 0.06, 1.0])
    whole = with_unknown(np.tile([0.6, 0.4], (4, 1)), p_values, 0.05)
    assert (whole.argmax(axis=1) == 2).tolist() == [True, True, False, False]
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) is None


def test_twenty_images_of_one_part_are_one_witness():
    """Counted as twenty, 8 parts promise 5 % of false alarms, and give nearly twice as many."""
    alarms = []
    for seed in range(30):
        rng = np.random.default_rng(seed)

        def drawn(parts: int, images: int, rng: np.random.Generator = rng) -> np.ndarray:
            away = rng.normal(size=(parts, 3)).repeat(images, axis=0)
            away[:, 0] += 6 * (np.arange(parts) % 2).repeat(images)
            return (away + 0.2 * rng.normal(size=away.shape)).astype(np.float32)

        targets, names = (np.arange(8) % 2).repeat(20), [str(i // 20) for i in range(160)]
        folds = deal_folds(targets, names)
        ensemble, held_out = fit_ensemble({"a": drawn(8, 20)}, targets, np.ones(160), folds)
        novelty = learn_novelty(held_out, targets, 2, names)
        assert len(novelty.scores) == 8
        alarms.append(novelty.p_values(ensemble.distances({"a": drawn(200, 1)})) <= 0.05)
    assert np.mean(alarms) <= 0.05


def test_descriptors_are_measured_once_and_hardly_move_with_exposure():
    pixels = texture("rows", np.random.default_rng(4))
    cache: dict = {}
    first = describe([pixels, pixels.copy()], cache)
    assert len(cache) == 1
    assert set(first) == set(FAMILIES)
    assert all(np.isfinite(x).all() for x in first.values())
    lighter = describe([(pixels // 2 + 20).astype(np.uint8), new_pixels()])
    moved = np.linalg.norm(lighter["local_patterns"][0] - first["local_patterns"][0])
    assert moved < 0.5 * np.linalg.norm(lighter["local_patterns"][1] - first["local_patterns"][0])


def test_benchmark_runs_on_made_up_images(capsys):
    defects_classify.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "defects-classify"
    assert result["made_up"]
    assert result["acc"] > 0.6
    assert 0 <= result["acc_worst"] <= result["acc"]
