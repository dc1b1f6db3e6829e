"""ONNX files of others: what is mended, what is refused, and that the answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels.compression.foreign import ForeignError, drawn_inputs, read_foreign
from kernels.compression.formats.decisions import compare
from kernels.compression.formats.onnx_file import onnx_runner
from kernels.compression.qdq import QdqConfig, quantise

RNG = np.random.default_rng(0)


def constant(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(RNG.normal(size=shape).astype(dtype), name)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path, nodes, inputs, outputs, constants=(), *, opset=20, ir=8, domains=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    path.write_bytes(model.SerializeToString())
    return path


def answers_stay(made, batch=3):
    """Compare the file that came out with the one that went in."""
    held = drawn_inputs(made.shapes, made.dtypes, 4, batch=batch)
    reference, run = made.reference(), onnx_runner(made.model, "made", made.config)
    apart = compare([reference(one) for one in held], [run(one) for one in held])
    assert apart.flips == 0
    assert apart.max_rel < 1e-5
    return held


def small_net(path, **more):
    """Convolution, norm, pool and product, as exporters of 2018 wrote them."""
    norm = [constant(n, 4) for n in ("scale", "bias", "mean")]
    variance = numpy_helper.from_array(np.full(4, 1.5, np.float32), "var")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "z"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([-1, 4]), "shape")
    held = [
        constant("w", 4, 3, 3, 3),
        *norm,
        variance,
        shape,
        constant("v", 4, 5),
        constant("z", 5),
    ]
    return saved(path, nodes, [value("x", ["n", 3, 8, 8])], [value("y", ["n", 5])], held, **more)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 20])
def test_old_operator_sets_come_to_one_that_int8_can_be_written_in(tmp_path, opset):
    made = read_foreign(small_net(tmp_path / "net.onnx", opset=opset, ir=3 if opset == 7 else 8))
    assert made.opset == opset
    assert onnx.load_model_from_string(made.model).opset_import[0].version >= 13
    held = answers_stay(made)

    def loss(first, second):
        return compare(first, second).max_rel

    int8 = quantise(made.model, held, loss, QdqConfig(threads=1))
    assert b"QuantizeLinear" in int8.model
    assert int8.loss < 0.1


def test_weights_among_the_inputs_are_no_inputs(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [value("x", [None, 4]), value("w", [4, 3])]
    path = saved(tmp_path / "a.onnx", nodes, inputs, [value("y", [None, 3])],
                 [constant("w", 4, 3)], opset=9, ir=3)  # fmt: skip
    made = read_foreign(path)
    assert made.config.inputs == ("x",)
    assert made.shapes == {"x": (0, 4)}
    assert "weights taken out of the inputs" in made.changes
    answers_stay(made)


def test_float64_becomes_float32(tmp_path):
    double = TensorProto.DOUBLE
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=double),
    ]
    weights = [constant("w", 4, 3, dtype=np.float64)]
    path = saved(tmp_path / "a.onnx", nodes, [value("x", ["n", 4], double)],
                 [value("y", ["n", 3], double)], weights)  # fmt: skip
    made = read_foreign(path)
    assert made.dtypes == {"x": "float32"}
    assert "float64 became float32" in made.changes
    answers_stay(made)


def test_layout_of_tensorflow_with_computed_shapes(tmp_path):
    """Images [n, h, w, 3], transposes around filters, a shape read and put together again."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Transpose", ["c"], ["u"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["u", "bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n"], ["n1"], axes=[0]),
        helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["r", "to"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    whole = [numpy_helper.from_array(np.array(0), "zero"),
             numpy_helper.from_array(np.array([-1]), "rest")]  # fmt: skip
    held = [constant("w", 4, 3, 3, 3), constant("bias", 4), constant("v", 4 * 4 * 4, 5), *whole]
    path = saved(tmp_path / "tf.onnx", nodes, [value("x", ["n", 8, 8, 3])],
                 [value("y", ["n", 5])], held, opset=11)  # fmt: skip
    made = read_foreign(path)
    assert made.shapes == {"x": (0, 8, 8, 3)}
    answers_stay(made)


def test_a_classifier_of_scikit_learn(tmp_path):
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x = RNG.normal(size=(60, 4)).astype(np.float32)
    model = LogisticRegression().fit(x, (x[:, 0] > 0).astype(int))
    path = tmp_path / "a.onnx"
    path.write_bytes(to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())
    made = read_foreign(path)
    answers_stay(made)
    path.write_bytes(to_onnx(model, x[:1]).SerializeToString())
    with pytest.raises(ForeignError, match="zipmap"):
        read_foreign(path)


def test_trees_of_lightgbm(tmp_path):
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    x = RNG.normal(size=(80, 4))
    trees = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=5, verbose=-1, n_jobs=1)
    trees.fit(x, x[:, 0] > 0)
    inputs = [("x", FloatTensorType([None, 4]))]
    path = tmp_path / "a.onnx"
    made = convert_lightgbm(trees.booster_, initial_types=inputs, zipmap=False, target_opset=15)
    path.write_bytes(made.SerializeToString())
    answers_stay(read_foreign(path))


def external(folder, location, content=b"\0" * 48, **more):
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3])
    weights.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **more}.items():
        weights.external_data.add(key=key, value=str(text))
    (folder / "w.bin").write_bytes(content)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return saved(folder / "a.onnx", nodes, [value("x", [None, 4])], [value("y", [None, 3])],
                 [weights])  # fmt: skip


def test_weights_in_another_file_of_the_folder_are_brought_in(tmp_path):
    content = np.arange(12, dtype=np.float32)
    made = read_foreign(external(tmp_path, "w.bin", content.tobytes()))
    (tmp_path / "w.bin").unlink()
    answers_stay(made)
    run = onnx_runner(made.model, "made", made.config)
    assert run({"x": np.eye(4, dtype=np.float32)})["y"].ravel().tolist() == content.tolist()


@pytest.mark.parametrize(
    ("location", "more", "told"),
    [
        ("../w.bin", {}, "outside"),
        ("/etc/passwd", {}, "outside"),
        ("gone.bin", {}, "missing"),
        ("w.bin", {"offset": 8}, "size of their shape"),
        ("w.bin", {"length": 4096}, "not in w.bin"),
        ("w.bin", {"offset": -4}, "not in w.bin"),
        ("w.bin", {"offset": "x"}, "no number"),
    ],
)
def test_weights_elsewhere_are_refused(tmp_path, location, more, told):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    with pytest.raises(ForeignError, match=told):
        read_foreign(external(folder, location, **more))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 48)
    path = external(folder, "link.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ForeignError, match="outside"):
        read_foreign(path)


def one_node(path, node, shape=("n", 4), out=("n", 4), **more):
    return saved(path, [node], [value("x", shape)], [value("y", out)], **more)


def test_what_blocks_is_told(tmp_path):
    path = tmp_path / "a.onnx"
    relu = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ForeignError, match="operator set 6 is too old"):
        read_foreign(one_node(path, relu, opset=6))
    with pytest.raises(ForeignError, match="newer than what is known"):
        read_foreign(one_node(path, relu, opset=99))
    strange = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(ForeignError, match=r"other domains: com\.microsoft\.Gelu"):
        read_foreign(one_node(path, strange, domains=["com.microsoft"]))
    with pytest.raises(ForeignError, match="ONNX Runtime does not take it"):
        read_foreign(one_node(path, helper.make_node("NoSuchThing", ["x"], ["y"])))
    with pytest.raises(ForeignError, match="no such file"):
        read_foreign(tmp_path / "gone.onnx")
    path.write_bytes(b"\x08\x08 not onnx at all")
    with pytest.raises(ForeignError, match="no whole ONNX file"):
        read_foreign(path)
    path.write_bytes(small_net(path).read_bytes()[:-40])
    with pytest.raises(ForeignError, match=r"a\.onnx"):
        read_foreign(path)


def test_a_missing_shape_is_asked_for(tmp_path):
    relu = helper.make_node("Relu", ["x"], ["y"])
    path = one_node(tmp_path / "a.onnx", relu, shape=None, out=None)
    with pytest.raises(ForeignError, match="input 'x' has no shape"):
        read_foreign(path)
    with pytest.raises(ForeignError, match="has no input"):
        read_foreign(path, shapes={"z": (1,)})
    made = read_foreign(path, shapes={"x": (0, 4)})
    assert made.config.dynamic == {"x": {0: ("x_0", 1, 2**16)}}
    answers_stay(made)


def test_weights_of_another_size_than_their_shape_are_refused(tmp_path):
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[400, 300], raw_data=b"\0" * 8)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(tmp_path / "a.onnx", nodes, [value("x", [None, 400])],
                 [value("y", [None, 300])], [short])  # fmt: skip
    with pytest.raises(ForeignError, match="size of their shape"):
        read_foreign(path)


def test_functions_of_its_own_are_written_out(tmp_path):
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    node = helper.make_node("Twice", ["x"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", [value("x", ["n", 4])], [value("y", ["n", 4])])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[twice], ir_version=9)
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    made = read_foreign(path)
    assert "functions of its own written out" in made.changes
    answers_stay(made)
