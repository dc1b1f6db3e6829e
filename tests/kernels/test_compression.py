"""Int8 and parity on small graphs written by hand: ranges, biases, what goes back to float."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kernels.compression import qdq
from kernels.compression.export import ExportError, checked, with_scalars
from kernels.compression.middle import middle
from kernels.compression.parity import ParityError, ParityRecord, difference
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.ranges import BINS, Activation, cut, measure_activations
from kernels.compression.sessions import open_session

RNG = np.random.default_rng(5)
CPU = Path("/proc/cpuinfo").read_text(encoding="utf-8")


def convolutions(scale=1.0):
    """Return a file: two convolutions with a Relu between, one channel of the second ``scale``d."""
    first = RNG.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32)
    second = RNG.normal(0, 0.3, (4, 8, 3, 3)).astype(np.float32)
    second[0] *= scale
    biases = [RNG.normal(0, 0.1, n).astype(np.float32) for n in (8, 4)]
    held = dict(zip(("w1", "w2", "b1", "b2"), (first, second, *biases), strict=True))
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2", "b2"], ["y"], "second", pads=[1] * 4),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 12, 12])
        for name, channels in (("x", 3), ("y", 4))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return checked(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)],
                                     ir_version=9))  # fmt: skip


def inputs(count=12):
    return [{"x": RNG.normal(0.5, 1, (1, 3, 12, 12)).astype(np.float32)} for _ in range(count)]


def shift(reference, answers):
    apart = [a["y"] - b["y"] for a, b in zip(reference, answers, strict=True)]
    spread = np.std([a["y"] for a in reference])
    return float(np.sqrt(np.mean(np.square(apart))) / spread)


def kinds(model):
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


@pytest.mark.parametrize(
    "seven",
    [
        True,
        pytest.param(
            False,
            marks=pytest.mark.skipif(
                platform.machine() == "x86_64" and "vnni" not in CPU,
                reason="without VNNI products of 8-bit weights saturate: seven_bits is for such",
            ),
        ),
    ],
)
def test_int8_answers_nearly_as_float(seven):
    made = quantise(convolutions(), inputs(), shift, QdqConfig(seven_bits=seven, threads=1))
    assert made.loss < 0.05
    assert made.float_nodes == ()
    assert made.rule in made.losses
    assert kinds(made.model).count("QuantizeLinear") >= 3
    weights = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load_model_from_string(made.model).graph.initializer
        if t.data_type == TensorProto.INT8 and len(t.dims) == 4
    }
    assert len(weights) == 2
    largest = max(int(np.abs(w.astype(int)).max()) for w in weights.values())
    assert largest <= (64 if seven else 127)
    assert largest > (60 if seven else 120)


def test_a_file_holds_no_zero_points_that_are_zero_and_answers_the_same(monkeypatch):
    whole, held = convolutions(), inputs()
    small = quantise(whole, held, shift, QdqConfig(threads=1)).model
    monkeypatch.setattr(qdq, "compact", lambda model: None)
    large = quantise(whole, held, shift, QdqConfig(threads=1)).model
    assert len(small) < 0.75 * len(large)
    for fed in held[:3]:
        answers = [open_session(file, threads=1).run(None, fed)[0] for file in (small, large)]
        np.testing.assert_array_equal(*answers)
    graph = onnx.load_model_from_string(small).graph
    zeros = {
        tuple(len(node.input) for node in graph.node if node.op_type == kind)
        for kind in ("QuantizeLinear", "DequantizeLinear")
    }
    assert {count for some in zeros for count in some} == {2, 3}
    assert {"first", "second"} <= {node.name for node in graph.node}


def test_the_best_rule_is_taken_by_the_loss():
    config = QdqConfig(rules=("60", "min-max"), correct_bias=False, threads=1)
    made = quantise(convolutions(), inputs(), shift, config)
    assert made.rule == "min-max"
    assert made.losses["60"] > made.losses["min-max"] == made.loss


def test_a_node_goes_back_to_float_only_while_the_loss_is_too_high():
    config = QdqConfig(rules=("min-max",), tolerance=0.0, most_float=1, threads=1)
    model, calibration = convolutions(), inputs()
    made = quantise(model, calibration, shift, config)
    assert set(made.sensitivity) == {"first", "second"}
    assert made.float_nodes == (max(made.sensitivity, key=lambda n: made.sensitivity[n]),)
    assert made.loss < min(made.losses.values())
    kept = quantise(model, calibration, shift, replace(config, most_float=0))
    assert kept.float_nodes == ()


def test_biases_take_up_what_rounding_weights_shifts():
    model, calibration = convolutions(), inputs()

    def moved(reference, answers):
        each = np.mean([a["y"] - b["y"] for a, b in zip(reference, answers, strict=True)], (0,))
        return float(np.abs(each.mean(axis=(0, 2, 3))).max())

    config = QdqConfig(rules=("min-max",), most_float=0, threads=1)
    made = quantise(model, calibration, moved, config)
    assert made.bias_corrected == (made.losses["min-max, bias corrected"] < made.losses["min-max"])
    assert made.loss == min(made.losses.values())


def test_what_cannot_be_quantised_is_told():
    with pytest.raises(ExportError, match="calibration"):
        quantise(convolutions(), [], shift)
    node = helper.make_node("Add", ["x", "x"], ["y"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(ExportError, match="no convolution"):
        quantise(checked(model), [{"x": np.ones(1, np.float32)}], shift)


def test_int8_reaches_from_the_first_filter_to_the_last():
    """Values go: Add, 3 x 3, Relu, 3 x 3, Add (around the second), 1 x 1, Add, MatMul."""
    make = helper.make_node
    shapes = {"w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3), "w3": (2, 4, 1, 1), "m": (6, 2)}
    tensors = [
        numpy_helper.from_array(RNG.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    tensors.append(numpy_helper.from_array(np.float32([0.5]), "c"))
    nodes = [
        make("Add", ["x", "c"], ["a"], "before"),
        make("Conv", ["a", "w1"], ["b"], "first", pads=[1] * 4),
        make("Relu", ["b"], ["r"], "relu"),
        make("Conv", ["r", "w2"], ["d"], "second", pads=[1] * 4),
        make("Add", ["r", "d"], ["s"], "around"),
        make("Conv", ["s", "w3"], ["h"], "head"),
        make("Add", ["h", "c"], ["g"], "behind"),
        make("MatMul", ["g", "m"], ["y"], "product"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 6, k])
        for n, c, k in (("x", 4, 6), ("y", 2, 2))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    chosen = [node.name for node in middle(graph)]
    assert chosen == ["first", "relu", "second"]
    # One more filter behind, and what lies before it counts as well, the 1 x 1 among them.
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 2, 3, 3), np.float32), "w4"))
    graph.node.append(make("Conv", ["g", "w4"], ["z"], "third"))
    more = ["first", "relu", "second", "around", "head", "behind", "third"]
    assert [node.name for node in middle(graph)] == more
    # Without the first, what lies between its output and the next stays float, too.
    assert [node.name for node in middle(graph, 1)] == ["second", *more[3:]]


def test_products_alone_are_all_made_int8():
    weights = [numpy_helper.from_array(np.eye(3, dtype=np.float32), n) for n in ("m", "k")]
    weights.append(numpy_helper.from_array(np.ones(3, np.float32), "vector"))
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "k"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "vector"], ["y"], "sum"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    assert [node.name for node in middle(graph)] == ["first", "second"]


def test_constants_of_one_number_are_set_by_name():
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    node = helper.make_node("Add", ["x", "half"], ["y"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    made = with_scalars(checked(model), {"half": np.float32(7)})
    (answer,) = open_session(made, threads=1).run(None, {"x": np.ones(1, np.float32)})
    assert answer == [8.0]
    with pytest.raises(ExportError, match="'other'"):
        with_scalars(made, {"other": np.float32(1)})
    with pytest.raises(ExportError, match="'w1'"):
        with_scalars(convolutions(), {"w1": np.float32(1)})


def test_activations_are_measured_as_numpy_does():
    model = onnx.load_model_from_string(convolutions())
    given_ = inputs(5)
    found = measure_activations(model, ["x"], given_, threads=1)["x"]
    values = np.concatenate([one["x"] for one in given_])
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.counts.sum() == values.size
    assert np.allclose(found.mean, values.mean(axis=(0, 2, 3)), atol=1e-6)


@given(
    st.sampled_from(["min-max", "99.99", "99", "mse", "entropy"]),
    st.floats(-50, 50),
    st.floats(0, 20, exclude_min=True),
)
def test_ranges_hold_zero_and_never_exceed_what_was_measured(rule, middle, spread):
    values = np.random.default_rng(1).normal(middle, spread, 4000)
    counts, edges = np.histogram(values, BINS)
    low, high = cut(Activation(edges[0], edges[-1], counts, np.zeros(0)), rule)
    assert min(edges[0], 0) - 1e-9 <= low <= 0 <= high <= max(edges[-1], 0) + 1e-9


def test_unknown_rules_are_refused():
    activation = Activation(0.0, 1.0, np.ones(BINS, np.int64), np.zeros(0))
    for rule in ("best", "12", "101"):
        with pytest.raises(ValueError, match="range rule"):
            cut(activation, rule)


def test_mse_cuts_a_lone_outlier_away():
    counts = np.zeros(BINS, np.int64)
    counts[: BINS // 20] = 1_000_000
    counts[-1] = 1
    assert cut(Activation(0.0, 100.0, counts, np.zeros(0)), "mse")[1] < 50


def record(**changes):
    made = ParityRecord(
        model="m",
        images=("a", "b"),
        trained=((0.1, 0), (math.inf, 1)),
        float32=((0.1, 0), (math.nan, 2)),
        shipped=((0.2, 0), (0.4, 1)),
        runtime="r",
        facts={"rule": "mse"},
    )
    return replace(made, **changes)


def test_records_survive_json_and_changes_are_seen():
    text = record(float32=((0.1, 0), (-math.inf, 2))).to_json()
    read = ParityRecord.from_json(text)
    assert read.exported.flips == 1
    assert read.exported.table == {"0->0": 1, "1->2": 1}
    assert read.quantised.flips == 0
    assert ParityRecord.from_json(record().to_json()).to_json() == record().to_json()
    for broken in (text.replace("0.4", "0.3"), text.replace('"version": 1', '"version": 2'),
                   text[:-30], "[]", "", text.replace('"facts"', '"fact"')):  # fmt: skip
        with pytest.raises(ParityError):
            ParityRecord.from_json(broken)
    with pytest.raises(ParityError, match="one answer of each kind"):
        record(images=("a",))


def test_differences_are_told_in_full():
    found = difference([(0.0, 0), (math.nan, 2), (1.0, 1)], [(0.5, 1), (math.nan, 2), (1.0, 1)])
    assert (found.score_max, found.flips) == (0.5, 1)
    assert difference([(1.0, 1)], [(math.nan, 2)]).score_max == math.inf


def test_heads_are_int8_where_they_are_asked_for_and_clips_go_into_ranges():
    rng = np.random.default_rng(2)
    make = helper.make_node
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "m": (8, 4)}
    held = {n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()}
    held |= {"low": np.float32(0), "high": np.float32(1)}
    nodes = [
        make("Conv", ["x", "w1"], ["a"], "first", pads=[1] * 4),
        make("Clip", ["a", "low", "high"], ["c"], "clip"),
        make("Conv", ["c", "w2"], ["b"], "second", pads=[1] * 4),
        make("GlobalAveragePool", ["b"], ["p"], "pool"),
        make("Flatten", ["p"], ["f"], "flat"),
        make("MatMul", ["f", "m"], ["y"], "head"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in (("x", [1, 3, 12, 12]), ("y", [1, 4]))]  # fmt: skip
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in held.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = checked(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)],
                                      ir_version=9))  # fmt: skip
    fed = inputs()
    for whole in (False, True):
        config = QdqConfig(rules=("min-max",), most_float=0, threads=1, whole=whole)
        made = quantise(model, fed, shift, config)
        graph = onnx.load_model_from_string(made.model).graph
        floats = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        assert ("m" in floats) is not whole
        assert "Clip" not in kinds(made.model)
        assert made.loss < 0.05


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"x": np.full((1, 3, 12, 12), np.nan, np.float32)}, "input 1: x holds NaN"),
        ({"x": np.zeros((1, 3, 9, 12), np.float32)}, r"\[1, 3, 9, 12\], the file wants"),
        ({"z": np.zeros((1, 3, 12, 12), np.float32)}, r"names \['z'\]"),
    ],
)
def test_inputs_that_do_not_go_with_the_file_are_refused(spoilt, message):
    with pytest.raises(ExportError, match=message):
        quantise(convolutions(), [*inputs(1), spoilt], shift)
