"""The Triton kernel passes the kernel's own tests, by Triton's interpreter on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.ops.attention.dispatch import block_sparse_attention
from tests.processes import unmeasured

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_triton_through_its_interpreter():
    """In a process of its own: the variable counts when Triton is imported.

    Without coverage, which would take as long again as the interpreter itself.
    """
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", "-rA",
         "--no-header", "tests/kernels/test_attention.py", "-k", "triton"],
        cwd=ROOT, env=unmeasured() | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert "PASSED" in result.stdout
    assert "-triton]" in result.stdout


def test_triton_asked_for_without_a_gpu_is_an_error():
    q = torch.zeros(1, 1, 16, 16)
    index = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="backend triton needs CUDA tensors"):
        block_sparse_attention(q, q, q, index, block=16, query_block=16, backend="triton")
