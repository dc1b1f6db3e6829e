"""AOTInductor: an archive of torch.export becomes a package with a compiled library in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hand_over import (  # type: ignore[import-not-found]
    Arrays,
    Runner,
    exported,
    load_arrays,
    load_program,
    module_of,
    serve,
    shapes_of,
)
from torch import Tensor

OPTIONS = {"cpp_cache_precompile_headers": False, "compile_threads": 1}
"""Headers compiled beforehand cost a minute, and pay only from the third net on."""


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Write the package, without sources and names of folders."""
    from torch import _inductor as inductor

    module = module_of(load_program(request["archive"]))
    example = tuple(torch.from_numpy(one) for one in load_arrays(request["example"]))
    program = exported(module, example, shapes_of(request))
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / "whole.pt2")
        inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=OPTIONS)
        repack(Path(package), Path(request["path"]))
    return {
        "version": "pt2 package of AOTInductor",
        "producers": {"torch": version("torch"), "g++": compiler()},
        "dynamic": any(request["free"]),
    }


def repack(source: Path, target: Path) -> None:
    """Leave out the sources, and the names of folders on this machine."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if entry.filename.endswith(".cpp"):
                continue
            content = old.read(entry)
            if entry.filename.endswith(".so"):
                content = nameless(stripped(content))
            new.writestr(entry, content)


def nameless(library: bytes) -> bytes:
    """Return a library whose messages name no folders; all stays where it is."""
    for folder in (Path(torch.__file__).parents[1], Path(tempfile.gettempdir())):
        name = str(folder).encode()
        library = library.replace(name, b"/" * len(name))
    return library


def stripped(library: bytes) -> bytes:
    """Return a library without debug information, where ``strip`` is installed."""
    tool = shutil.which("strip")
    if tool is None:
        return library
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library)
        file.flush()
        subprocess.run([tool, "--strip-debug", file.name], check=True, timeout=120)
        return Path(file.name).read_bytes()


def compiler() -> str:
    """Return the version of g++."""
    told = subprocess.run(
        ["g++", "-dumpfullversion"], check=False, capture_output=True, text=True, timeout=30
    )
    return told.stdout.strip()


def opened(path: str) -> Runner:
    """Return what runs a package."""
    from torch import _inductor as inductor

    torch.set_num_threads(1)
    run_net = inductor.aoti_load_package(path)

    def run(arrays: Arrays) -> Arrays:
        found = run_net(*(torch.from_numpy(one) for one in arrays))
        return [one.numpy() for one in ((found,) if isinstance(found, Tensor) else found)]

    return run


if __name__ == "__main__":
    serve(write, opened)
