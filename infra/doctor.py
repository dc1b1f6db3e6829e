"""Checks of the machine and the environment; every finding carries its fix."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from infra import jars
from infra.errors import MissingToolError
from infra.services.ports import is_free, port_variable
from infra.services.registry import SERVICES, service_status
from infra.settings import CHECKOUT, Settings

Level = Literal["ok", "note", "problem"]
GIB = 1024**3
MEMORY_GIB = 6.0
DISK_GIB = 5.0
JAVA_MAJOR = 17
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Args:
        check: what was looked at.
        level: "ok", "note" (something optional is missing) or "problem" (will not work).
        found: what is there.
        fix: how to mend it, "" where nothing is to be done.
    """

    check: str
    level: Level
    found: str
    fix: str = ""


def diagnose(settings: Settings, checkout: Path = CHECKOUT) -> list[Finding]:
    """All findings, in the order of a set-up."""
    return [
        check_python(),
        check_pins(checkout / "constraints.txt"),
        check_java(),
        check_maven(),
        check_jars(),
        check_chromium(),
        check_optional("Redis", "redis-server", "the online store of several machines"),
        check_optional("Prometheus", "prometheus", "keeping the measures of the stream"),
        check_memory(),
        check_disk(settings.home),
        *check_ports(settings),
        check_processor(),
        check_gpu(),
    ]


def check_python() -> Finding:
    """Python 3.11, the only version the pinned set was tried on."""
    version = platform.python_version()
    if platform.python_version_tuple()[:2] == ("3", "11"):
        return Finding("Python", "ok", version)
    return Finding("Python", "problem", version, "Install Python 3.11, then: make setup")


def read_pins(constraints: Path) -> dict[str, str]:
    """Package name to pinned version.

    Raises:
        OSError: the file cannot be read.
    """
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pairs}


def check_pins(constraints: Path) -> Finding:
    """Every installed package stands at its pinned version, and none is missing."""
    if not constraints.is_file():
        fix = "Run penstock from a whole checkout"
        return Finding("packages", "problem", f"{constraints} is missing", fix)
    pins = read_pins(constraints)
    wrong = []
    for name, pinned in pins.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "missing"
        if installed != pinned:
            wrong.append(f"{name} {installed} (pinned {pinned})")
    if not wrong:
        return Finding("packages", "ok", f"all {len(pins)} at their pins")
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    fix = "Run: rm -f .venv/.penstock-setup && make setup"
    return Finding("packages", "problem", ", ".join(wrong[:5]) + more, fix)


def check_java() -> Finding:
    """Java 17, which Flink needs."""
    fix = "Run: sudo apt-get install -y openjdk-17-jdk-headless"
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if not java or not Path(java).exists():
        return Finding("Java", "problem", "missing", fix)
    # `java -version` speaks on stderr.
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Java", "problem", f"{java} does not run: {error}", fix)
    version = re.search(r'version "(\d+)([^"]*)"', answer)
    if version is None:
        return Finding("Java", "problem", f"{java} does not tell its version", fix)
    text = version.group(1) + version.group(2)
    if int(version.group(1)) != JAVA_MAJOR:
        return Finding("Java", "problem", f"{text} (need {JAVA_MAJOR})", fix)
    return Finding("Java", "ok", text)


def check_maven() -> Finding:
    """Maven, which builds and fetches the jars of the stream at set-up."""
    found = shutil.which("mvn")
    if found:
        return Finding("Maven", "ok", found)
    fix = "For the stream: sudo apt-get install -y maven, then: make setup"
    return Finding("Maven", "note", "missing", fix)


def check_jars() -> Finding:
    """The jars of the stream: Kafka's broker, Flink's connectors, our own module."""
    missing = []
    for name, find in (
        ("the Kafka broker", jars.broker_jars),
        ("the Flink connectors", jars.connector_jars),
        ("our own module", jars.stream_jar),
    ):
        try:
            find()
        except MissingToolError:
            missing.append(name)
    if not missing:
        return Finding("jars", "ok", f"all in {jars.jar_folder()}")
    return Finding("jars", "note", f"missing: {', '.join(missing)}", "For the stream: make setup")


def check_optional(check: str, program: str, use: str) -> Finding:
    """A program of the distribution that only some uses need."""
    found = shutil.which(program)
    if found:
        return Finding(check, "ok", found)
    return Finding(check, "note", "missing", f"For {use}: sudo apt-get install -y {program}")


def check_chromium() -> Finding:
    """A headless browser, used by the test of the report only."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found:
        return Finding("Chromium", "ok", found)
    fix = "For the report's test: sudo apt-get install -y chromium"
    return Finding("Chromium", "note", "missing", fix)


def check_memory() -> Finding:
    """Memory that could be had now."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available >= MEMORY_GIB * GIB:
        return Finding("memory", "ok", found)
    fix = f"Close other programs; training wants {MEMORY_GIB:.0f} GiB"
    return Finding("memory", "note", found, fix)


def check_disk(home: Path) -> Finding:
    """Space where the state lives."""
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    if free >= DISK_GIB:
        return Finding("disk", "ok", f"{free:.0f} GiB free at {folder}")
    fix = f"Free {DISK_GIB:.0f} GiB, or set PENSTOCK_HOME to a roomier disk"
    return Finding("disk", "problem", f"{free:.1f} GiB free at {folder}", fix)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """The port of each service: ours, free, or taken by somebody else."""
    for name, definition in SERVICES.items():
        check = f"port of {definition.title}"
        running = service_status(settings, name)
        configured = definition.configured_port(settings)
        port = configured or definition.usual_port
        if running.url:
            yield Finding(check, "ok", f"{running.state} at {running.url}")
        elif is_free(port):
            yield Finding(check, "ok", f"{port} is free")
        elif configured:
            fix = f"Stop what holds it, or set {port_variable(name)}=0"
            yield Finding(check, "problem", f"{port} is in use", fix)
        else:
            yield Finding(check, "ok", f"{port} is in use; another will be taken")


def check_processor() -> Finding:
    """Cores and the instruction sets that decide which kernels pay."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    line = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = set(line.group(1).split()) if line else set()
    sets = {
        "AVX2": "avx2" in flags,
        "AVX-512": "avx512f" in flags,
        "VNNI": bool({"avx512_vnni", "avx_vnni"} & flags),
        "AMX": "amx_tile" in flags,
    }
    named = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in sets.items())
    found = f"{len(os.sched_getaffinity(0))} cores; {named}"
    if flags and not sets["AVX2"]:
        return Finding("processor", "note", found, "Works, but slowly: use a CPU with AVX2")
    return Finding("processor", "ok", found)


def check_gpu() -> Finding:
    """The GPU, which nothing here needs."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return Finding("GPU", "ok", "none (not needed)")
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", "note", f"nvidia-smi does not run: {error}", "Repair the driver")
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        fix = "Repair the NVIDIA driver, or go on without GPU"
        return Finding("GPU", "note", said[0] if said else "nvidia-smi fails", fix)
    return Finding("GPU", "ok", "; ".join(answer.stdout.strip().splitlines()))
