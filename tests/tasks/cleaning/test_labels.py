"""Label errors: scores equal their formulas, errors come first, figures and queue are right."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.findings import FINDINGS
from tasks.cleaning.labels.crossval import accuracy_after, out_of_sample
from tasks.cleaning.labels.figures import auroc, found, found_per_reviewed, times_random
from tasks.cleaning.labels.noise import fit_noise
from tasks.cleaning.labels.queue import label_findings, review_queue, with_reviews
from tasks.cleaning.labels.ranking import DEFAULT, SCORES, doubts
from tasks.cleaning.labels.scores import checked, class_calibrated, fitted_temperature, softened
from tests.benchmarks import label_errors
from tests.benchmarks._label_sets import IMDB_INDEX, inject, made_up, read_set

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.05, 0.05, 0.9], [0.8, 0.1, 0.1]])
Y = np.array([0, 2, 2, 1])


def noisy_draws(n: int, seed: int, swap: float, temperature: float = 1.0):
    """Return labels, probabilities and which labels were moved from class 0 to 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2.5, (n, 3))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    clean = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    wrong = (clean == 0) & (rng.random(n) < swap)
    return np.where(wrong, 1, clean), softened(p, temperature), wrong


def test_published_scores_by_hand():
    """Values of cleanlab 2.9.0 for these rows, 1 - label quality."""
    known = {
        "self_confidence": [0.3, 0.7, 0.1, 0.9],
        "normalized_margin": [0.25, 0.65, 0.075, 0.85],
        "confidence_weighted_entropy": [
            0.314966381391482,
            0.517366165417771,
            0.158465407396733,
            0.670023885650243,
        ],
        "self_confidence_adjusted": [
            0.588235294117647,
            0.764705882352941,
            0.411764705882353,
            0.588235294117647,
        ],
        "normalized_margin_adjusted": [
            0.529411764705882,
            0.735294117647059,
            0.397058823529412,
            0.529411764705882,
        ],
    }
    for score, values in known.items():
        np.testing.assert_allclose(doubts(Y, P, score), values, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "probabilities", "says"),
    [
        ([0, 1], [[0.5, 0.5]], "as many labels"),
        ([0.0], [[0.5, 0.5]], "encode"),
        ([2], [[0.5, 0.5]], "do not fit 2 classes"),
        ([0, 0], [[0.5, 0.5], [0.5, 0.6]], "first row 1"),
        ([0], [[np.nan, 1.0]], "no probabilities"),
        ([0], [[1.5, -0.5]], "no probabilities"),
        ([0], [[1.0]], "classes >= 2"),
    ],
)
def test_what_is_no_probability_is_refused(labels, probabilities, says):
    with pytest.raises(ValueError, match=says):
        checked(labels, probabilities)
    with pytest.raises(ValueError, match="no label score 'best'"):
        doubts(Y, P, "best")


@pytest.mark.parametrize("score", SCORES)
def test_moved_labels_are_found(score):
    y, p, wrong = noisy_draws(2_000, 1, swap=0.2)
    assert auroc(doubts(y, p, score), wrong) > 0.75
    assert np.array_equal(doubts(y, p, score), doubts(y, p, score))


def test_temperature_and_noise_are_recovered():
    y, p, _ = noisy_draws(6_000, 2, swap=0.0, temperature=0.5)
    assert fitted_temperature(y, p) == pytest.approx(2.0, rel=0.1)
    y, p, wrong = noisy_draws(6_000, 3, swap=0.2)
    model = fit_noise(y, p)
    assert model.matrix[0] == pytest.approx([0.8, 0.2, 0.0], abs=0.03)
    assert np.diag(model.matrix)[1:] == pytest.approx([1, 1], abs=0.03)
    likely = model.wrong(y, p)
    assert label_errors.calibration_error(likely, wrong) < 0.01
    assert likely.sum() == pytest.approx(wrong.sum(), rel=0.15)


def test_calibration_by_class_mends_a_class():
    y, p, _ = noisy_draws(3_000, 4, swap=0.0)
    bent = p * [4.0, 1.0, 1.0]  # the model sees class 0 too often
    bent /= bent.sum(axis=1, keepdims=True)
    loss = {
        "bent": -np.log1p(-doubts(y, bent, "self_confidence")).mean(),
        "mended": -np.log1p(-class_calibrated(y, bent)).mean(),
        "straight": -np.log1p(-doubts(y, p, "self_confidence")).mean(),
    }
    assert loss["mended"] - loss["straight"] < 0.1 * (loss["bent"] - loss["straight"])
    with pytest.raises(ValueError, match="class 0 has 1 labels"):
        class_calibrated(Y, P)


def test_figures():
    doubt, wrong = [9, 8, 7, 6, 5], [True, False, True, False, False]
    assert auroc(doubt, wrong) == pytest.approx(5 / 6)
    assert found(doubt, wrong).tolist() == [1, 1, 2, 2, 2]
    assert found([1, 1, 0, 0], [True, False, False, True]).tolist() == [0.5, 1, 1.5, 2]
    assert found_per_reviewed(doubt, wrong, 2) == 0.5
    assert times_random(doubt, wrong) == pytest.approx((2 / 3) / (2 / 5))
    assert times_random(np.zeros(5), wrong) == pytest.approx(1)
    assert np.isnan(times_random(doubt, np.zeros(5)))
    assert np.isnan(auroc(doubt, np.ones(5)))
    with pytest.raises(ValueError, match="budget of 6"):
        found_per_reviewed(doubt, wrong, 6)


@pytest.mark.parametrize("score", [DEFAULT, "class_calibrated"])
def test_queue(score):
    y, p, wrong = noisy_draws(1_500, 5, swap=0.3)
    queue = review_queue(y, p, ["a", "b", "c"], score=score)
    assert queue["priority"].to_list() == list(range(1, 1_501))
    assert sorted(queue["row"]) == list(range(1_500))
    assert queue["score"].is_sorted(descending=True)
    assert queue["wrong_probability"].is_sorted(descending=True)
    assert queue["wrong_probability"].sum() == pytest.approx(wrong.sum(), rel=0.3)
    assert (queue["given"] != queue["suggested"]).all()
    first = queue.row(0, named=True)
    assert first["given"] == "abc"[y[first["row"]]]
    findings = label_findings(queue, "label", 0.6)
    assert dict(findings.schema) == dict(FINDINGS)
    assert len(findings) == (queue["wrong_probability"] >= 0.6).sum() > 0
    assert findings["confidence"].min() >= 0.6
    assert findings["row"].is_sorted()


def test_queue_without_rows_and_with_odd_names():
    queue = review_queue(np.zeros(0, dtype=int), np.zeros((0, 2)))
    assert queue.schema == review_queue(Y, P, score="self_confidence").schema
    assert label_findings(queue, "label").is_empty()
    with pytest.raises(ValueError, match="3 classes need as many names, not 2"):
        review_queue(Y, P, ["a", "b"])


def test_reviews_calibrate():
    y, p, wrong = noisy_draws(4_000, 6, swap=0.2)
    queue = review_queue(y, p).sort("priority")
    off = queue.with_columns(pl.col("wrong_probability") / 8)  # says too little
    rows = np.random.default_rng(0).permutation(4_000)
    verdicts = {int(r): bool(wrong[r]) for r in rows[:300]}
    mended = with_reviews(off, verdicts)
    rest = [int(r) for r in rows[300:]]

    def error(frame: pl.DataFrame) -> float:
        likely = frame.sort("row")["wrong_probability"].to_numpy()[rest]
        return label_errors.calibration_error(likely, wrong[rest])

    assert error(mended) < error(off) / 2
    assert mended["row"].equals(off["row"])
    assert mended["wrong_probability"].is_sorted(descending=True)
    with pytest.raises(ValueError, match=r"rows \[4000\] are not"):
        with_reviews(queue, {4_000: True})
    with pytest.raises(ValueError, match="no verdict"):
        with_reviews(queue, {})


@pytest.mark.parametrize("model", ["logistic", "lightgbm"])
def test_cross_validation_never_sees_its_own_label(model):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.integers(0, 2, 200)
    x[::7, 2] = np.nan
    names = np.array(["no", "yes"])[y].tolist()
    held = out_of_sample(x, names, model=model, seed=3)
    accuracy = (held.probabilities.argmax(axis=1) == y).mean()
    assert accuracy < 0.62  # labels are coin tosses: a model that saw them reaches .9
    assert held.classes == ("no", "yes")
    assert np.bincount(held.fold).tolist() == [40] * 5
    again = out_of_sample(x, names, model=model, seed=3)
    assert np.array_equal(held.probabilities, again.probabilities)
    assert not np.array_equal(held.fold, out_of_sample(x, names, model=model, seed=4).fold)


def test_cross_validation_refuses():
    x = np.zeros((6, 1))
    with pytest.raises(ValueError, match="'b' has 1 rows, 5 folds"):
        out_of_sample(x, list("aaaaab"))
    with pytest.raises(ValueError, match="at least two classes"):
        out_of_sample(x, list("aaaaaa"))
    with pytest.raises(ValueError, match="of 5 labels"):
        out_of_sample(x, list("aaabb"))
    with pytest.raises(ValueError, match="no model 'tree'"):
        out_of_sample(x, list("aaabbb"), model="tree")


def test_removing_and_relabelling_pay_on_clean_test_labels():
    """Ten tables whose doubtful labels are put right; the gain's interval is above zero."""
    gains = {"remove": [], "relabel": []}
    for seed in range(10):
        data = made_up(400, 50 + seed, rate=0.25)
        train, test = (data.x, data.given), (data.test_x, data.test_y)
        held = out_of_sample(data.x, [str(k) for k in data.given], model="logistic", seed=seed)
        queue = review_queue(held.labels, held.probabilities, held.classes)
        top = queue.filter(pl.col("wrong_probability") > 0.5)
        rows, to = top["row"].to_numpy(), top["suggested"].cast(int).to_numpy()

        def score(effect, rows=rows, to=to, train=train, test=test):
            return accuracy_after(train, test, rows, to, effect=effect, model="logistic")

        for effect, values in gains.items():
            values.append(score(effect) - score(None))
    for values in gains.values():
        assert label_errors.interval(values, 0)[1] > 0


def made_folder(folder, names):
    y, p, _ = noisy_draws(60, 8, swap=0.2)
    for name in names:
        np.save(folder / f"{name}_labels.npy", y.astype(np.uint16))
        np.save(folder / f"{name}_pyx.npy", p)
        ids = [f"test/neg/{i}_1" if name == "imdb" else i for i in range(30)]
        votes = [{"id": k, "mturk": {"given": i % 6}} for i, k in enumerate(ids)]
        (folder / f"{name}_mturk.json").write_text(json.dumps(votes))


def test_verdicts_are_read(tmp_path):
    made_folder(tmp_path, ["mnist", "imdb"])
    mnist = read_set(tmp_path, "mnist")
    assert mnist.rows.tolist() == list(range(30))
    assert mnist.wrong[:6].tolist() == [True, True, True, False, False, False]
    assert not len(read_set(tmp_path, "imdb").rows)  # names of files, no index
    index = [f"neg/{i}_1.txt" for i in reversed(range(59))] + ["neg/7_1.txt"]
    (tmp_path / IMDB_INDEX).write_text(json.dumps(index))
    imdb = read_set(tmp_path, "imdb")
    assert imdb.rows[:3].tolist() == [58, 57, 56]
    assert len(imdb.rows) == len(imdb.wrong) == 29  # the name that stands twice is left out


def test_injected_errors():
    y, p, _ = noisy_draws(1_000, 9, swap=0.0)
    noisy, wrong = inject(y, p, "confusable", np.random.default_rng(0))
    assert wrong.sum() == 20
    assert np.array_equal(noisy != y, wrong)
    assert (p.argmax(axis=1)[wrong] == y[wrong]).all()


def test_benchmark(capsys, tmp_path):
    made_folder(tmp_path, label_errors.SETS)
    label_errors.main(["--smoke", "--json", "--data", str(tmp_path)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "label-errors"
    assert result["made_up"][f"auroc_{DEFAULT}"] > 0.8
    assert result["made_up"][f"x_random_{DEFAULT}"] > 2
    assert result["sets_measured"] == 3
    assert result["imdb_auroc"] is None
    keys = {"cifar10_x_random", "mnist_auroc", "20news_cleanlab_x_random", "mnist_cleanlab_auroc",
            "sets_ahead_of_cleanlab", "pooled_gain", "pooled_gain_low", "worst_loss"}  # fmt: skip
    assert all(result[key] is not None for key in keys)
    assert result["verdicts"]["self_confidence"]["pooled_gain"] == 0
    with pytest.raises(SystemExit, match="no folder"):
        label_errors.main(["--smoke", "--data", str(tmp_path / "none")])
