"""Opens an ONNX file under a limit of address space, runs it, and prints its peak memory.

A program of its own, run with the standard library, NumPy and ONNX Runtime alone: what it takes is
what a box on the line needs, and nothing of this project is loaded.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path


def main(model: str, inputs: str, limit: int) -> None:
    """Run the file on stored inputs."""
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(inputs, allow_pickle=False) as stored:
        session.run(None, {name: stored[name] for name in stored.files})
    # Not getrusage: what it tells includes the process that started this one.
    with Path("/proc/self/status").open(encoding="ascii") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    sys.stdout.write(json.dumps({"peak_mb": int(peak.split()[1]) / 1024}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
