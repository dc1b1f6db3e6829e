"""AOTInductor (.pt2 with a compiled library): torch without its graph, for this kind of CPU.

A process of its own writes it: compilers run for a minute, and what they leave goes with it. The
library is native code. Open such a file only where its card's digest comes from someone you trust.
"""

from __future__ import annotations

import platform
import shutil

from kernels.compression.formats.handed import HandedFormat


class AotiFormat(HandedFormat):
    """Needs g++ beside the environment."""

    def available(self) -> str:
        """Return "" where g++ is installed."""
        return "" if shutil.which("g++") else "aoti needs g++; run: sudo apt-get install -y g++"


AOTI = AotiFormat(
    "aoti",
    ".aoti.pt2",
    "aoti_worker.py",
    own=False,
    notes=(f"compiled for this kind of CPU ({platform.machine()}) and this version of torch",),
)
