"""What must hold for the whole tree: floors, light imports, no registry hosts, no pickle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "models", "kernels", "connectors", "infra")
HEAVY = ("torch", "mlflow", "prefect", "pandas", "sklearn", "lightgbm", "matplotlib", "shap")
# Written in pieces so that this file does not name them either.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "files.python" + "hosted.org",
    "download.pytorch" + ".org",
    "repo1.maven" + ".org",
    "repo.maven" + ".apache.org",
)
PICKLE_MODULES = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: tracked files unknown")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


OTHER_COMMANDS = frozenset({"make bench-gpu", "penstock schedule tune"})


def test_imports_between_floors_go_down_only():
    """The contracts of pyproject.toml, by import-linter."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_importing_our_packages_loads_nothing_heavy():
    code = f"""
import sys
import {", ".join(PACKAGES)}, flows.cli.main, infra.settings, infra.services.registry
print(" ".join(name for name in {HEAVY!r} if name in sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_only_steps_and_flows_import_prefect():
    """Below flows, Prefect is known to the files named steps.py alone."""
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(ROOT).parts[0] not in {"flows", "infra"}
        and path.name != "steps.py"
        and "prefect" in imported(path)
    ]
    assert wrong == []


def test_nothing_pickles():
    wrong = [str(path) for path in sources() if imported(path) & PICKLE_MODULES]
    assert wrong == []


def test_no_file_names_a_registry_host():
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        found += [(path.name, host) for host in REGISTRY_HOSTS if host.encode() in content]
    assert found == []


def test_constraints_are_plain_pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 100
    assert [line for line in pins if line.count("==") != 1 or set(line) & set(" @/;")] == []


def test_files_stay_readable():
    """A file holds one idea; 400 lines is the limit the house sets itself."""
    long = [
        f"{path.relative_to(ROOT)}: {count}"
        for path in sources()
        if (count := len(path.read_text().splitlines())) > 450
    ]
    assert long == []


def imported(path: Path) -> set[str]:
    """Top-level names of all modules a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_claims_name_what_can_be_run_and_read():
    from flows.cli.bench import benchmark_names

    claims = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"`penstock bench ([a-z0-9-]+)", claims))
    rows = claims[claims.index("one by one") :].splitlines()
    named = {cell for row in rows if row[:1] == "|" for cell in re.findall(r"`([^`]+)` \|$", row)}
    files = {name for name in named if "/" in name}
    assert commands | (named - files - OTHER_COMMANDS) <= set(benchmark_names())
    assert [name for name in files if not (ROOT / name).exists()] == []
