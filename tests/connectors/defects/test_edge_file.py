"""Edge files on disk: both files whole, and refused where they do not belong together."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from connectors.defects.edge_file import (
    open_edge_file,
    read_edge_file,
    record_path,
    write_edge_file,
)
from kernels.compression.export import checked, with_metadata
from kernels.compression.parity import ParityRecord
from tasks.defects.edge.format import EdgeFacts, EdgeFile, EdgeFileError
from tasks.defects.judgement import Thresholds


@pytest.fixture(scope="module")
def edge():
    """A file that calls the share of light the score."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["pixels"], ["light"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["light"], ["score"], keepdims=0),
        helper.make_node("ReduceMean", ["light", "colours"], ["heat"], keepdims=0),
        helper.make_node("Identity", ["one"], ["kinds"]),
        helper.make_node("Identity", ["review"], ["verdict"]),
    ]
    outputs = [
        value("score", TensorProto.FLOAT, []),
        value("heat", TensorProto.FLOAT, ["h", "w"]),
        value("kinds", TensorProto.FLOAT, [1]),
        value("verdict", TensorProto.INT64, []),
    ]
    constants = [
        helper.make_tensor("colours", TensorProto.INT64, [1], [2]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("review", TensorProto.INT64, [], [2]),
    ]
    pixels = value("pixels", TensorProto.UINT8, ["h", "w", 3])
    graph = helper.make_graph(nodes, "g", [pixels], outputs, constants)
    model = checked(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    )
    answers = ((0.0, 2),)
    record = ParityRecord(model="", images=("a",), trained=answers, float32=answers,
                          shipped=answers, runtime="", facts={})  # fmt: skip
    facts = EdgeFacts(kinds=("unknown",), thresholds=Thresholds(0, 1), size=None, tile=None,
                      model="", parity=record.digest(), created_by="test", int8=False)  # fmt: skip
    sealed = with_metadata(model, facts.to_metadata())
    record = replace(record, model=hashlib.sha256(sealed).hexdigest())
    return EdgeFile(sealed, record, model)


def test_what_is_written_is_read_and_runs(edge, tmp_path):
    path = tmp_path / "line.onnx"
    write_edge_file(path, edge)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line.onnx", "line.parity.json"]
    assert read_edge_file(path, demand_record=True) == (edge.model, edge.record)
    judged = open_edge_file(path, threads=1, demand_record=True).judge(np.full((9, 9), 7, np.uint8))
    assert judged.score == 7
    assert judged.verdict == "REVIEW"
    assert judged.heat.shape == (9, 9)


def test_a_record_is_demanded_or_not(edge, tmp_path):
    path = tmp_path / "line.onnx"
    write_edge_file(path, edge)
    record_path(path).unlink()
    assert read_edge_file(path) == (edge.model, None)
    with pytest.raises(EdgeFileError, match=r"no parity record line\.parity\.json"):
        read_edge_file(path, demand_record=True)
    record_path(path).write_text(replace(edge.record, model="0").to_json())
    with pytest.raises(EdgeFileError, match="not the one of its parity record"):
        open_edge_file(path, demand_record=True)
    record_path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(EdgeFileError, match="no text"):
        read_edge_file(path, demand_record=True)


def test_other_files_are_told_with_their_name(edge, tmp_path):
    with pytest.raises(EdgeFileError, match="no such file"):
        open_edge_file(tmp_path / "none.onnx")
    with pytest.raises(EdgeFileError, match=r"named \*\.onnx"):
        write_edge_file(tmp_path / "line.bin", edge)
    (tmp_path / "cut.onnx").write_bytes(edge.model[:100])
    with pytest.raises(EdgeFileError, match=r"cut\.onnx.*ends early"):
        open_edge_file(tmp_path / "cut.onnx")
