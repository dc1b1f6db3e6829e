"""States as plain files: what goes in comes out, whatever the format; the rest is refused."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from kernels.runtime.packing import digest_of, pack, unpack, write_tensors

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OTHERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


@given(
    st.lists(
        st.tuples(st.sampled_from(FLOATS + OTHERS), st.lists(st.integers(0, 5), max_size=3)),
        max_size=6,
    )
)
def test_tensors_come_back_as_they_were(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp("tensors") / "t.safetensors"
    tensors = {
        f"t{n}": torch.randint(0, 2, shape).to(dtype) for n, (dtype, shape) in enumerate(shapes)
    }
    found = write_tensors(path, tensors)
    assert found == digest_of(path)
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_views_and_fp8_are_written_as_their_values(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"t": base.t(), "row": base[1], "fp8": base.to(torch.float8_e4m3fn)}
    write_tensors(tmp_path / "f", tensors)
    loaded = load_file(tmp_path / "f")
    assert torch.equal(loaded["t"], base.t())
    assert torch.equal(loaded["row"], base[1])
    assert torch.equal(loaded["fp8"].float(), tensors["fp8"].float())


def test_nested_values_come_back():
    tied = torch.ones(3)
    value = {"a": [1, 2.5, None, "x", True], "b": {0: tied, 7: (tied, torch.zeros(0))}}
    plain, tensors = pack(value)
    assert len(tensors) == 2, "tied weights are kept once"
    again = unpack(json.loads(json.dumps(plain)), tensors)
    assert again["a"] == value["a"]
    assert again["b"].keys() == {0, 7}
    assert again["b"][7][0] is again["b"][0]


def test_what_is_no_state_is_refused_with_its_place():
    with pytest.raises(TypeError, match=r"parts\.1 is a set"):
        pack({"parts": [1, {2}]})
    with pytest.raises(TypeError, match="the state is a object"):
        pack(object())
