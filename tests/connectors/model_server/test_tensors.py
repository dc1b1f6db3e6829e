"""Tensors survive the way through JSON and through raw bytes; what is malformed is refused."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from connectors.model_server.datatypes import DTYPES, datatype_of
from connectors.model_server.messages import Limits, pack, parse_request, unpack
from connectors.model_server.tensors import TensorError

LIMITS = Limits(10_000)
calm = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def arrays(*, finite: bool):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    texts = st.text(max_size=5)
    floats = {"allow_nan": not finite, "allow_infinity": not finite}

    def of(name):
        dtype = DTYPES[name]
        if name == "BYTES":
            return hnp.arrays(object, shapes, elements=texts, fill=st.nothing())
        elements = hnp.from_dtype(dtype, **floats) if dtype.kind == "f" else None
        return hnp.arrays(dtype, shapes, elements=elements)

    return st.sampled_from(sorted(DTYPES)).flatmap(of)


@calm
@given(st.lists(arrays(finite=False), min_size=1, max_size=4))
def test_raw_bytes_are_exact(sent):
    tensors = {f"t{i}": array for i, array in enumerate(sent)}
    body, length = pack({"id": "1"}, "inputs", tensors, None)
    got = unpack(body, length, "inputs", LIMITS).tensors
    for name, array in tensors.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].flags.aligned
        np.testing.assert_array_equal(got[name], array)


@calm
@given(st.lists(arrays(finite=True), min_size=1, max_size=4), st.sampled_from([(), ("t0",)]))
def test_json_is_exact_for_what_it_can_say_also_mixed_with_raw_bytes(sent, binary):
    tensors = {f"t{i}": array for i, array in enumerate(sent)}
    body, length = pack({}, "inputs", tensors, binary)
    got = parse_request(body, length, LIMITS).inputs
    for name, array in tensors.items():
        assert datatype_of(got[name]) == datatype_of(array)
        assert got[name].shape == array.shape
        np.testing.assert_array_equal(got[name], array)


@calm
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4)))
def test_what_json_cannot_say_comes_back_as_nan(sent):
    body, _ = pack({}, "outputs", {"y": sent})
    got = unpack(body, "", "outputs", Limits(1_000, nulls=True)).tensors["y"]
    np.testing.assert_array_equal(got, np.where(np.isfinite(sent), sent, np.nan))
    if not np.isfinite(sent).all():
        with pytest.raises(TensorError, match="no FP32"):
            unpack(body, "", "outputs", LIMITS)


@pytest.mark.parametrize("nested", [True, False])
def test_lists_may_be_flat_or_nested(nested):
    data = [[1, 2, 3], [4, 5, 6]] if nested else [1, 2, 3, 4, 5, 6]
    entry = {"name": "x", "datatype": "INT16", "shape": [2, 3], "data": data}
    got = parse_request(orjson.dumps({"inputs": [entry]}), "", LIMITS).inputs["x"]
    np.testing.assert_array_equal(got, np.array([[1, 2, 3], [4, 5, 6]], np.int16))


def test_large_and_small_whole_numbers_go_together():
    data = [0, 2**64 - 1, 2**63, 1]
    entry = {"name": "x", "datatype": "UINT64", "shape": [2, 2], "data": data}
    got = parse_request(orjson.dumps({"inputs": [entry]}), "", LIMITS).inputs["x"]
    assert got.ravel().tolist() == data


def one(**changes):
    entry = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | changes
    return {"inputs": [{key: value for key, value in entry.items() if value is not ...}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "JSON object"),
        ({}, "list of 1 to"),
        ({"inputs": []}, "list of 1 to"),
        ({"inputs": [3]}, "object with a name"),
        ({"inputs": one()["inputs"] * 2}, "there twice"),
        (one(name=""), "object with a name"),
        (one(datatype="FP8"), "is unknown"),
        (one(datatype=["FP32"]), "is unknown"),
        (one(shape=[-1]), "numbers from 0"),
        (one(shape=[True, 2]), "numbers from 0"),
        (one(shape=[2.0]), "numbers from 0"),
        (one(shape="2"), "must be a list"),
        (one(shape=[1] * 17), "must be a list"),
        (one(shape=[9_999, 9_999]), "more than 10000 elements"),
        (one(shape=[3]), "asks for 3"),
        (one(shape=[1, 2], data=[[1], [2]]), "nested as"),
        (one(data=[[1], [2, 3]]), "differ in length"),
        (one(data=...), "data must be a list"),
        (one(data=["1", "2"]), "no FP32"),
        (one(data=[True, False]), "no FP32"),
        (one(data=[1, None]), "no FP32"),
        (one(data=[{}, {}]), "no FP32"),
        (one(data=[1e300, 0]), "beyond FP32"),
        (one(datatype="INT8", data=[1.5, 2]), "no INT8"),
        (one(datatype="INT8", data=[1, 128]), "beyond INT8"),
        (one(datatype="UINT64", data=[1, -1]), "beyond UINT64"),
        (one(datatype="INT64", data=[1, 2**63]), "beyond INT64"),
        (one(datatype="INT64", data=[-1, 2**63]), "no INT64"),
        (one(datatype="BOOL", data=[1, 0]), "no BOOL"),
        (one(datatype="BYTES", data=["a", 1]), "no BYTES"),
        (one(datatype="BYTES", shape=[2, 1], data=[["a"], "b"]), "differ in depth"),
        (one(parameters=3), "must be an object"),
        (one(parameters={"binary_data_size": 8}), "0 bytes are there"),
        (one() | {"id": 3}, "id must be"),
        (one() | {"outputs": {}}, "outputs must be"),
        (one() | {"outputs": [{"name": "y"}] * 2}, "asked for twice"),
        (one() | {"parameters": []} | {"outputs": [3]}, "object with a name"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(document, said):
    with pytest.raises(TensorError, match=said):
        parse_request(orjson.dumps(document), "", LIMITS)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "said"),
    [
        ("FP32", [2], b"1234567", "takes 8"),
        ("BOOL", [2], b"\x01\x02", "0 or 1"),
        ("BYTES", [1], b"\x05\0\0\0abc", "end within"),
        ("BYTES", [2], b"\x01\0\0\0a", "too few"),
        ("BYTES", [2], b"\x05\0\0\0abcde", "end within"),
        ("BYTES", [1], b"\x01\0\0\0ab", "left behind"),
        ("BYTES", [1], b"\x01\0\0\0\xff", "no UTF-8"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype, shape, raw, said):
    entry = one(datatype=datatype, shape=shape, data=..., parameters={"binary_data_size": len(raw)})
    head = json.dumps(entry).encode()
    with pytest.raises(TensorError, match=said):
        parse_request(head + raw, str(len(head)), LIMITS)


@pytest.mark.parametrize("length", ["9999", "-1", "x", "1e3", "٣", "9" * 40])
def test_a_wrong_header_length_is_refused(length):
    with pytest.raises(TensorError, match="inference-header-content-length"):
        parse_request(orjson.dumps(one()), length, LIMITS)


def test_bytes_of_no_tensor_are_refused():
    head = orjson.dumps(one())
    with pytest.raises(TensorError, match="belong to no tensor"):
        parse_request(head + b"more", str(len(head)), LIMITS)


def test_the_limit_is_for_all_tensors_together():
    half = {"datatype": "UINT8", "shape": [6_000], "data": [0] * 6_000}
    document = {"inputs": [{"name": "a", **half}, {"name": "b", **half}]}
    with pytest.raises(TensorError, match=r"b: shape holds .* 0 to 4000"):
        parse_request(orjson.dumps(document), "", LIMITS)


@calm
@given(st.data())
def test_damaged_requests_are_refused_or_understood_but_never_break(data):
    good = {"a": np.arange(4, dtype=np.int32), "b": np.array(["x", "yz"], object)}
    body, length = pack({"id": "1"}, "inputs", good, data.draw(st.sampled_from([None, ()])))
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[at] = data.draw(st.integers(0, 255))
        else:
            del damaged[at:]
            break
    header = data.draw(st.sampled_from([length, "", str(len(damaged)), "7"]))
    try:
        request = parse_request(bytes(damaged), header, LIMITS)
    except TensorError:
        return
    assert all(array.size <= LIMITS.elements for array in request.inputs.values())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@calm
@given(
    st.fixed_dictionaries(
        {"name": json_values, "shape": json_values, "data": json_values},
        optional={"datatype": st.sampled_from(sorted(DTYPES)), "parameters": json_values},
    )
)
def test_any_json_is_refused_or_understood(entry):
    for made in (entry, entry | {"name": "x", "shape": [2]}):
        try:
            parse_request(orjson.dumps({"inputs": [made]}), "", LIMITS)
        except TensorError:
            continue


def test_arrays_without_a_datatype_are_refused():
    with pytest.raises(TypeError, match="complex128"):
        pack({}, "inputs", {"x": np.zeros(2, np.complex128)})
