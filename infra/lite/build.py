"""Builds the wheels of ``penstock-lite`` and ``penstock-client`` out of the checkout's own files.

Beginning with the entries that a ``pyproject.toml`` names, every import is followed: what it leads
to is the wheel, under one package name, and no line of it is kept twice. An import of anything but
the standard library and the wheel's dependencies ends the build. The wheel is the same to the byte
wherever it is built. It is also a build back end (PEP 517) of the project it lies beside, with the
standard library alone.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import re
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PROJECT = "infra/lite"
"""Folder of the ``pyproject.toml`` that is built unless told otherwise."""
MOMENT = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip file can tell."""
TAG = "py3-none-any"


class BuildError(RuntimeError):
    """What cannot be in the wheel; says where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What ``pyproject.toml`` says.

    Attributes:
        name: Of the distribution.
        version: Of the checkout.
        project: Table ``[project]``.
        package: Name that everything lies under.
        root: House package that becomes it.
        entries: Modules to begin with.
        floors: Top-level packages of the house.
    """

    name: str
    version: str
    project: Mapping[str, Any]
    package: str
    root: str
    entries: tuple[str, ...]
    floors: frozenset[str]

    @property
    def allowed(self) -> frozenset[str]:
        """Top-level names that may be imported besides the house's."""
        needed = (re.split(r"[<>=!~ ;\[]", one)[0] for one in self.project["dependencies"])
        return frozenset(sys.stdlib_module_names) | set(needed)

    def renamed(self, module: str) -> str:
        """Return the name of a house module in the wheel."""
        if module == self.root or module.startswith(f"{self.root}."):
            return self.package + module.removeprefix(self.root)
        return f"{self.package}.{module}"


def read_plan(checkout: Path = CHECKOUT, project: str = PROJECT) -> Plan:
    """Return the plan of a project of a checkout."""
    told = tomllib.loads((checkout / project / "pyproject.toml").read_text(encoding="utf-8"))
    house = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    tool = told["tool"]["penstock-wheel"]
    return Plan(
        name=told["project"]["name"],
        version=house["project"]["version"],
        project=told["project"],
        package=tool["package"],
        root=tool["root"],
        entries=tuple(tool["entries"]),
        floors=frozenset(tool["floors"]),
    )


def wheel_files(plan: Plan, checkout: Path = CHECKOUT) -> dict[str, bytes]:
    """Return the modules of the wheel: path in it -> content.

    Raises:
        BuildError: Where a module imports what is neither of the house nor allowed.
    """
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    waiting = list(plan.entries)
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        path = source_of(module, checkout)
        if path is None:
            raise BuildError(f"{module}: there is no such module")
        text = path.read_text(encoding="utf-8")
        rewritten, imported = _rewritten(text, path.relative_to(checkout), plan, checkout)
        waiting += imported
        above = module.rpartition(".")[0]
        waiting += [above] if above else []
        place = plan.renamed(module).replace(".", "/")
        found[f"{place}/__init__.py" if path.name == "__init__.py" else f"{place}.py"] = (
            rewritten.encode()
        )
    return dict(sorted(found.items()))


def source_of(module: str, checkout: Path) -> Path | None:
    """Return the file of a house module, None where there is none."""
    base = checkout / module.replace(".", "/")
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file():
            return path
    return None


def build_wheel(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
    *,
    project: str = PROJECT,
) -> str:
    """Write the wheel into a folder and return its name (PEP 517)."""
    del config_settings, metadata_directory
    plan = read_plan(project=project)
    stem = f"{plan.name.replace('-', '_')}-{plan.version}"
    files = wheel_files(plan)
    files |= {f"{stem}.dist-info/{name}": text for name, text in _about(plan).items()}
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
    folder = Path(wheel_directory)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stem}-{TAG}.whl"
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, MOMENT)
            entry.create_system = 3  # permissions are those of Unix, wherever it is built
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Refuse: the sources are the checkout (PEP 517)."""
    del sdist_directory, config_settings
    raise BuildError("there is no source archive; build the wheel from the checkout")


def _rewritten(text: str, path: Path, plan: Plan, checkout: Path) -> tuple[str, list[str]]:
    """Return a module with its house imports renamed, and the house modules it imports."""
    lines = text.splitlines(keepends=True)
    imported: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."] if not node.level else ["."]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            if top not in plan.floors and top not in plan.allowed:
                raise BuildError(f"{path}:{node.lineno}: imports {name}, no dependency of it")
            if top not in plan.floors:
                continue
            if isinstance(node, ast.Import):
                raise BuildError(f"{path}:{node.lineno}: write 'from {name} import ...'")
            line, here = lines[node.lineno - 1], node.lineno - 1
            lines[here] = line.replace(f"from {name} ", f"from {plan.renamed(name)} ", 1)
            if lines[here] == line:
                raise BuildError(f"{path}:{node.lineno}: write 'from {name} import' on one line")
            below = [f"{name}.{one.name}" for one in node.names]
            imported += [name, *(one for one in below if source_of(one, checkout))]
    return "".join(lines), imported


def _about(plan: Plan) -> dict[str, bytes]:
    """Return the files of the ``dist-info`` folder but ``RECORD``."""
    project = plan.project
    metadata = [
        "Metadata-Version: 2.4",
        f"Name: {plan.name}",
        f"Version: {plan.version}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {one}" for one in project["dependencies"]),
    ]
    scripts = ["[console_scripts]"]
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        scripts.append(f"{name} = {plan.renamed(module)}:{function}")
    wheel = ["Wheel-Version: 1.0", "Generator: penstock", "Root-Is-Purelib: true", f"Tag: {TAG}"]
    made = {"METADATA": metadata, "WHEEL": wheel, "entry_points.txt": scripts}
    about = {name: ("\n".join(lines) + "\n").encode() for name, lines in made.items()}
    return {"licenses/LICENSE": (CHECKOUT / "LICENSE").read_bytes()} | about


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main() -> None:
    """Build the wheel into a folder and say where it lies."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=CHECKOUT / ".penstock" / "dist")
    parser.add_argument("--project", default=PROJECT, help="folder of the pyproject.toml")
    args = parser.parse_args()
    try:
        path = args.out / build_wheel(str(args.out), project=args.project)
    except BuildError as error:
        sys.exit(f"{args.project}: {error}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sys.stdout.write(f"{path}, {path.stat().st_size / 1000:.0f} kB, sha256 {digest}\n")


if __name__ == "__main__":
    main()
