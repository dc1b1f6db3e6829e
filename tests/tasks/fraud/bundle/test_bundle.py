"""The bundle: what it holds, what it refuses, that it scores as it did when it was written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kernels.bundle.arrays import load_arrays, save_arrays
from kernels.bundle.folder import BundleError, bundle_digest, digest_file
from tasks.fraud.bundle import Bundle
from tasks.fraud.bundle.embeddings import Embeddings, EntityVectors
from tasks.fraud.bundle.heads import CHUNK, OnnxHead, compose
from tasks.fraud.transactions import Transactions


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_written_bundle_loads_and_scores_each_head(small_bundle, tmp_path):
    small_bundle(tmp_path / "b", active=(1, 0, -1, 0))
    bundle = Bundle.load(tmp_path / "b", digest=bundle_digest(tmp_path / "b"))
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    scores = bundle.score(rows)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, sigmoid(rows[:, 0] - rows[:, 2]), atol=1e-6)
    logistic = bundle.score(rows, head="logistic")
    np.testing.assert_allclose(logistic, sigmoid((rows[:, 0] + rows[:, 3]) / 2), atol=1e-6)
    assert bundle.heads == ("logistic", "tabular")
    assert bundle.inputs() == ("features",)
    assert not bundle.needs_graph()
    assert not bundle.embeddings
    assert bundle.feature_names == ("a", "b", "c", "d")
    assert bundle.background().shape == (32, 4)
    assert bundle.self_check() <= 1e-7
    assert bundle.config.name == "tiny"
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "tabular.ap_interval | 0.4000 .. 0.6000" in card


def test_writing_again_replaces_the_folder(small_bundle, tmp_path):
    small_bundle(tmp_path / "b", active=(1, 0, 0, 0))
    small_bundle(tmp_path / "b", active=(0, 1, 0, 0))
    rows = np.eye(4, dtype=np.float32)
    assert Bundle.load(tmp_path / "b").score(rows)[1] > 0.7
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_failed_write_leaves_the_old_bundle(small_bundle, tmp_path):
    before = small_bundle(tmp_path / "b").digest
    with pytest.raises(BundleError, match="'tabular' is not among"):
        small_bundle(tmp_path / "b", active=(0, 1, 0, 0), heads={"graph": b""})
    assert bundle_digest(tmp_path / "b") == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_nothing_in_a_bundle_is_a_pickle(small_bundle, tmp_path):
    folder = small_bundle(tmp_path / "b", extras={"trees.txt": b"tree"}).folder
    suffixes = {p.suffix for p in folder.rglob("*") if p.is_file()}
    assert suffixes <= {".onnx", ".npz", ".json", ".md", ".txt"}
    assert not any(b"cpickle" in p.read_bytes() for p in folder.rglob("*.npz"))


def alter_byte(folder):
    path = folder / "heads" / "tabular.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def reseal(folder, name):
    """Make the manifest vouch for an altered file, as an attacker who can write would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    file = folder / name
    manifest["files"][name] = {"sha256": digest_file(file), "size": file.stat().st_size}
    path.write_text(json.dumps(manifest))


def pickle_background(folder):
    np.savez(folder / "background.npz", features=np.array([{}], dtype=object))
    reseal(folder, "background.npz")


def edit_manifest(**changes):
    def edit(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (alter_byte, "contents differ"),
        (lambda f: (f / "heads" / "tabular.onnx").unlink(), "is missing"),
        (lambda f: (f / "metrics.json").write_text("{}"), "bytes, the manifest says"),
        (lambda f: (f / "more.json").write_text("{}"), "not in the manifest"),
        (lambda f: (f / "code.py").write_text(""), "does not belong"),
        (lambda f: (f / "model.pkl").write_bytes(b""), "does not belong"),
        (lambda f: (f / "link.txt").symlink_to("/etc/hostname"), "link or special"),
        (lambda f: (f / "manifest.json").unlink(), "holds no manifest"),
        (lambda f: (f / "manifest.json").write_text("[]"), "no bundle manifest"),
        (lambda f: (f / "manifest.json").write_text("{"), "no bundle manifest"),
        (edit_manifest(format=99), "format 99"),
        (edit_manifest(surprise=1), "unknown field"),
        (edit_manifest(active="both"), "active head"),
        (edit_manifest(heads=["tabular", "magic"]), "'magic'"),
        (edit_manifest(files={"../x.json": {"sha256": "", "size": 0}}), "outside the bundle"),
    ],
)
def test_a_damaged_bundle_is_refused(small_bundle, tmp_path, damage, message):
    folder = small_bundle(tmp_path / "b").folder
    damage(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_another_manifest_than_the_registered_one_is_refused(small_bundle, tmp_path):
    folder = small_bundle(tmp_path / "b").folder
    with pytest.raises(BundleError, match="not the manifest that was registered"):
        Bundle.load(folder, digest="1" * 64)


def test_pickled_arrays_are_refused_even_when_the_manifest_vouches(small_bundle, tmp_path):
    bundle = small_bundle(tmp_path / "b")
    pickle_background(bundle.folder)
    with pytest.raises(BundleError, match="no plain arrays"):
        Bundle.load(bundle.folder).background()
    with pytest.raises(BundleError, match="Python objects"):
        save_arrays(tmp_path / "o.npz", {"x": np.array([{}], dtype=object)})
    with pytest.raises(BundleError, match="no plain arrays"):
        load_arrays(b"PK\x03\x04junk", "x.npz")


def test_a_json_file_that_is_none_is_refused(small_bundle, tmp_path):
    folder = small_bundle(tmp_path / "b").folder
    (folder / "thresholds.json").write_text("{nope")
    reseal(folder, "thresholds.json")
    with pytest.raises(BundleError, match="is no JSON"):
        Bundle.load(folder)
    (folder / "thresholds.json").write_text("{}")
    reseal(folder, "thresholds.json")
    (folder / "features.json").write_text("{}")
    reseal(folder, "features.json")
    with pytest.raises(BundleError, match="lacks 'names'"):
        Bundle.load(folder)


def test_a_head_that_scores_otherwise_than_at_training_fails_its_self_check(
    small_bundle, linear_head, tmp_path
):
    folder = small_bundle(tmp_path / "b").folder
    (folder / "heads" / "tabular.onnx").write_bytes(linear_head((1.1, 0, 0, 0)))
    reseal(folder, "heads/tabular.onnx")
    with pytest.raises(BundleError, match="example scores differ"):
        Bundle.load(folder).self_check()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.score(np.zeros((2, 3), np.float32)), "has shape"),
        (lambda b: b.score(np.zeros(4, np.float32)), "has shape"),
        (lambda b: b.score(np.zeros((2, 4), np.float32), head="both"), "no head 'both'"),
        (lambda b: b.read_extra("nothing.txt"), "has no nothing.txt"),
    ],
)
def test_wrong_inputs_are_named(small_bundle, tmp_path, call, message):
    with pytest.raises(BundleError, match=message):
        call(small_bundle(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": np.zeros((2, 3), np.float32)}, "feature list has 4"),
        ({"example": {}}, "needs an array"),
        ({"extras": {"a/b.txt": b""}}, "plain name"),
        ({"extras": {"run.py": b""}}, "does not belong"),
        ({"heads": {"tabular": b"not onnx"}}, "no ONNX graph"),
    ],
)
def test_wrong_parts_are_refused(small_bundle, tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        small_bundle(tmp_path / "b", **changes)
    assert not (tmp_path / "b").exists()


def test_heads_with_foreign_operators_external_weights_or_inputs_are_refused(linear_head):
    import onnx

    model = onnx.load_from_string(linear_head((1, 0)))
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(BundleError, match="outside its file"):
        OnnxHead("tabular", model.SerializeToString())
    model = onnx.load_from_string(linear_head((1, 0)))
    model.opset_import.add(domain="evil", version=1)
    with pytest.raises(BundleError, match="non-standard operators"):
        OnnxHead("tabular", model.SerializeToString())
    with pytest.raises(BundleError, match="wants input 'other'"):
        OnnxHead("tabular", linear_head((1, 0), name="other"))
    model = onnx.load_from_string(linear_head((1, 0)))
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(BundleError, match="cannot be run"):
        OnnxHead("tabular", model.SerializeToString())


def test_composed_head_equals_network_then_trees(linear_head):
    first = linear_head((1, -1))
    second = linear_head((0.5, 0.25, 3))
    rows = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
    hidden = OnnxHead("graph", first).score({"features": rows})
    wide = np.column_stack([rows, hidden]).astype(np.float32)
    expected = OnnxHead("tabular", second).score({"features": wide})
    both = OnnxHead("both", compose(first, second))
    np.testing.assert_allclose(both.score({"features": rows}), expected, atol=1e-6)
    with pytest.raises(BundleError, match="needs input 'features'"):
        both.score({"features": None})


@pytest.mark.parametrize("rows", [0, 1, CHUNK, 2 * CHUNK + 7])
def test_any_number_of_rows_is_scored_in_order(linear_head, rows):
    head = OnnxHead("tabular", linear_head((1, -1)))
    x = np.random.default_rng(2).normal(size=(rows, 2)).astype(np.float32)
    found = head.score({"features": x})
    one_by_one = [head.score({"features": row[None]})[0] for row in x]
    assert found.shape == (rows,)
    np.testing.assert_allclose(found, np.array(one_by_one, np.float64), atol=1e-6)


def test_inputs_of_different_lengths_are_refused(linear_head):
    import onnx

    first, second = linear_head((1, -1)), linear_head((0.5, 0.25, 3))
    model = onnx.load_from_string(compose(first, second))
    mask = onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.BOOL, ["rows", 1])
    model.graph.input.append(mask)
    feed = {"features": np.zeros((2, 2), np.float32), "mask": np.ones((3, 1), bool)}
    with pytest.raises(BundleError, match="differ in length"):
        OnnxHead("both", model.SerializeToString()).score(feed)


def test_embeddings_round_trip_and_unseen_entities_get_the_default(tmp_path):
    ids = {"card": np.array(["9", "10", "2"])}
    vectors = {"card": np.arange(6, dtype=np.float32).reshape(3, 2)}
    Embeddings.build(ids, vectors).save(tmp_path / "e.npz")
    loaded = Embeddings.load((tmp_path / "e.npz").read_bytes())
    got = loaded.kinds["card"].lookup(np.array(["2", "unseen", "9"]))
    np.testing.assert_array_equal(got, [[4, 5], [2, 3], [0, 1]])
    empty = Embeddings.build({"card": ids["card"][:0]}, {"card": vectors["card"][:0]})
    np.testing.assert_array_equal(empty.kinds["card"].lookup(np.array(["x"])), [[0, 0]])


def test_embeddings_follow_entity_columns(tmp_path):
    n = 3
    tx = Transactions(
        event_id=np.arange(n), time=np.arange(n), amount=np.arange(n),
        label=np.zeros(n, np.int8), label_time=np.arange(n),
        entities={"from": np.array([0, 1, 1], np.int32), "to": np.array([1, 0, 2], np.int32)},
        kinds={"from": "account", "to": "account"},
        index={"account": np.array(["a", "b", "new"])},
    )  # fmt: skip
    vectors = {"account": np.array([[1.0], [2.0]], np.float32)}
    built = Embeddings.build(
        {"account": np.array(["a", "b"])}, vectors, {"account": np.array([9.0], np.float32)}
    )
    got = built.for_transactions(tx)
    np.testing.assert_array_equal(got[..., 0], [[1, 2], [2, 1], [2, 9]])
    with pytest.raises(BundleError, match="no embeddings of kind 'account'"):
        Embeddings({"card": built.kinds["account"]}).for_transactions(tx)


@pytest.mark.parametrize(
    ("ids", "vectors", "default", "message"),
    [
        (["a"], np.zeros((2, 1)), [0], "1 ids but"),
        (["a"], np.zeros((1, 2)), [0], "the default"),
        (["b", "a"], np.zeros((2, 1)), [0], "sorted"),
        (["a"], np.full((1, 1), np.nan), [0], "NaN"),
    ],
)
def test_impossible_embeddings_are_refused(ids, vectors, default, message):
    with pytest.raises(BundleError, match=message):
        EntityVectors(np.array(ids), vectors.astype(np.float32), np.array(default, np.float32))


def test_embeddings_file_without_a_part_is_refused(tmp_path):
    save_arrays(tmp_path / "e.npz", {"card.ids": np.array(["a"])})
    with pytest.raises(BundleError, match="lacks"):
        Embeddings.load((tmp_path / "e.npz").read_bytes())
