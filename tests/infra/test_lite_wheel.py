"""The wheel of penstock-lite: the checkout's own files, the same bytes each time, nothing else."""

from __future__ import annotations

import ast
import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from infra.lite.build import CHECKOUT, BuildError, build_wheel, read_plan, wheel_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return folder / build_wheel(str(folder))


def copied(tmp_path, module, text):
    """A checkout of a few files: the plan, and a house of one entry that says ``text``."""
    for name in ("pyproject.toml", "infra/lite/pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    path = tmp_path / f"{module.replace('.', '/')}.py"
    path.parent.mkdir(parents=True)
    for folder in (path.parent, *path.parent.parents):
        if folder == tmp_path:
            break
        (folder / "__init__.py").write_text("")
    path.write_text(text)
    return tmp_path


def plan_of(checkout, module):
    from dataclasses import replace

    return replace(read_plan(checkout), entries=(module,))


def test_two_builds_are_the_same_to_the_byte(wheel, tmp_path):
    command = [sys.executable, "-m", "infra.lite.build", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in done.stdout


def test_modules_are_those_of_the_checkout_but_for_the_names_of_imports(wheel):
    plan = read_plan()
    with zipfile.ZipFile(wheel) as archive:
        held = {n: archive.read(n).decode() for n in archive.namelist() if n.endswith(".py")}
    assert "penstock_lite/kernels/compression/onnx_wire.py" in held
    assert "penstock_lite/command.py" in held
    for name, text in held.items():
        assert name.startswith("penstock_lite/")
        below = name.removeprefix("penstock_lite/")
        source = CHECKOUT / below
        if below.count("/") == 0:
            source = CHECKOUT / plan.root.replace(".", "/") / below
        theirs, ours = text.splitlines(), source.read_text().splitlines()
        assert len(theirs) == len(ours)
        assert all("import" in b for a, b in zip(theirs, ours, strict=True) if a != b)


def test_it_imports_the_standard_library_numpy_and_onnxruntime_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {n: archive.read(n).decode() for n in archive.namelist() if n.endswith(".py")}
    for name, text in held.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.split(".")[0]
                assert top in sys.stdlib_module_names | {"numpy", "onnxruntime", "penstock_lite"}
                if top == "penstock_lite":
                    place = module.replace(".", "/")
                    assert {f"{place}.py", f"{place}/__init__.py"} & set(held), (name, module)


def test_its_record_names_every_file_with_its_digest(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        lines = [line.split(",") for line in archive.read(record).decode().splitlines()]
        assert [line[0] for line in lines] == archive.namelist()
        for name, digest, size in lines[:-1]:
            data = archive.read(name)
            packed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={packed}", str(len(data)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import torch\n", r"one\.py:1: imports torch"),
        ("def f():\n    from PIL import Image\n", r"one\.py:2: imports PIL"),
        ("import kernels.compression.parity\n", "write 'from kernels"),
        ("from  kernels import parity\n", "on one line"),
        ("from kernels.none import x\n", r"kernels\.none: there is no such module"),
    ],
)
def test_what_a_line_has_not_ends_the_build(tmp_path, text, told):
    checkout = copied(tmp_path, "kernels.one", text)
    with pytest.raises(BuildError, match=told):
        wheel_files(plan_of(checkout, "kernels.one"), checkout)


def test_imports_are_followed_and_renamed(tmp_path):
    checkout = copied(tmp_path, "connectors.lite.one", "from kernels.two import three\n")
    (checkout / "kernels/two").mkdir(parents=True)
    (checkout / "kernels/__init__.py").write_text("")
    (checkout / "kernels/two/__init__.py").write_text("")
    (checkout / "kernels/two/three.py").write_text("import numpy as np\n")
    found = wheel_files(plan_of(checkout, "connectors.lite.one"), checkout)
    assert found["penstock_lite/one.py"] == b"from penstock_lite.kernels.two import three\n"
    assert set(found) == {
        "penstock_lite/__init__.py",
        "penstock_lite/connectors/__init__.py",
        "penstock_lite/kernels/__init__.py",
        "penstock_lite/kernels/two/__init__.py",
        "penstock_lite/kernels/two/three.py",
        "penstock_lite/one.py",
    }
