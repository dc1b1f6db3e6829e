"""The byte layout is fixed: offsets, golden vectors and the documented table."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kernels.entity_state import BlockError, StateSpec, check_block, describe, layout_of, new_block
from kernels.entity_state.layout import LAYOUT_VERSION, version, view

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "entity_state"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("golden_entity_state", GOLDEN / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "vectors.json").read_text(encoding="utf-8"))


def test_default_layout_is_stable():
    fields = {field.name: field for field in describe(StateSpec())}
    assert layout_of(StateSpec()).size == 4160
    assert [f.offset for f in list(fields.values())[:6]] == [0, 8, 12, 16, 24, 32]
    wanted = {
        "roles[0].recent_ids": (80, "int64", 16),
        "roles[0].tiles_3600000.index": (208, "int64", 25),
        "roles[0].tiles_86400000.index": (1408, "int64", 31),
        "roles[0].tiles_86400000.sumsq": (2152, "float64", 31),
        "roles[0].labels.index": (2896, "int64", 31),
        "roles[0].labels.frauds": (3392, "int64", 31),
        "roles[0].mail.vector": (3904, "float32", 64),
    }
    assert {name: tuple(fields[name])[1:] for name in wanted} == wanted


def test_fields_tile_the_block_without_gaps_and_are_aligned():
    spec = StateSpec(roles=3, mail_width=5, recent_ids=3)
    at = 0
    for field in describe(spec):
        width = {"bytes": 1, "float32": 4, "uint32": 4}.get(field.type, 8)
        assert field.offset == at
        assert field.offset % width == 0
        at += width * field.length
    assert at == layout_of(spec).size
    assert at % 8 == 0


def test_documented_table_is_the_layout():
    text = (ROOT / "docs" / "reference" / "entity-state.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\w+) \| (\d+) \|", text, flags=re.MULTILINE)
    documented = [(name, int(offset), kind, int(length)) for name, offset, kind, length in rows]
    assert documented == [tuple(field) for field in describe(StateSpec())]


def test_block_header():
    spec = StateSpec()
    block = new_block(spec)
    head = view(block, spec)["header"]
    assert bytes(head["magic"]) == b"PENSTATE"
    assert (head["layout"], head["roles"], version(block)) == (LAYOUT_VERSION, 1, 0)
    check_block(block.tobytes(), spec)
    check_block(block, spec)
    block[0] = 0
    with pytest.raises(BlockError, match="not a state block of layout 2"):
        check_block(block, spec)
    with pytest.raises(BlockError, match="needs 4160"):
        check_block(block[8:], spec)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_golden_vectors(generate, golden, backend):
    made = json.loads(json.dumps(generate.vectors(backend)))
    features, wanted = made["batch"].pop("features"), golden["batch"]["features"]
    np.testing.assert_allclose(features, wanted, rtol=1e-12, atol=0)
    kept = {**golden, "batch": {k: v for k, v in golden["batch"].items() if k != "features"}}
    assert made == kept


def test_golden_vectors_cover_what_matters(golden):
    names = golden["features"]
    features = np.array(golden["batch"]["features"])
    assert (features[..., names.index("frauds_7d")] > 1).any()
    assert (features[..., names.index("run_length")] > 1).any()
    assert (np.diff(golden["batch"]["rows"]["time"]) == 0).any()
    applied = [step[-1] for step in golden["script"]["steps"] if step[0] == "apply"]
    assert {True, False} == set(applied)
