"""``infra/setup.sh`` on machines that lack something, played with a PATH of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cut", "grep", "sha256sum", "awk", "dirname", "mkdir", "chmod", "sed")
TOOLS += ("rm", "mv", "cp")

# Stands for Python and for the uv it installs; writes down what was asked of it.
RECORDER = """#!/bin/bash
echo "$(basename "$0") $*" >> "{log}"
if [[ "$*" == *"-m venv"* ]]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
if [[ "$*" == *"pip install"*"uv=="* ]]; then cp "$0" .venv/bin/uv; fi
if [[ "$*" == *"--offline"* && ! -e "{log}.cache" ]]; then exit 1; fi
if [[ "$*" == *"--editable"* ]]; then cp "$0" .venv/bin/penstock; fi
if [[ "$*" == *"import pip"* && ! -e .venv/bin/uv ]]; then exit 1; fi
"""


class Machine:
    """A checkout with the set-up files and a PATH that holds what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.bin = folder / "bin"
        self.log = folder / "log"
        (self.checkout / "infra").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("constraints.txt", "pyproject.toml", "infra/setup.sh"):
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in (*TOOLS, "basename"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.script("python3.11", RECORDER.format(log=self.log))
        self.script("id", "#!/bin/bash\necho 1000\n")
        self.script("java", "#!/bin/bash\n")
        self.script("ldconfig", "#!/bin/bash\necho libgomp.so.1\n")
        self.free_gib(100)

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def free_gib(self, amount: int) -> None:
        line = f"disk 1 1 {amount * 1048576} 1% /"
        self.script("df", f"#!/bin/bash\necho Filesystem\necho '{line}'\n")

    def setup(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "infra" / "setup.sh"],
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_everything_is_installed_under_the_constraints_once(machine):
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    assert "3 GB to download" in first.stdout
    # Useful packages that are missing do not stop it; the command is told.
    assert "sudo apt-get install -y --no-install-recommends maven chromium" in first.stdout
    assert "--constraint constraints.txt --editable .[dev]" in machine.asked()
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert next(pin for pin in pins if pin.startswith("uv==")) in machine.asked()

    machine.log.unlink()
    again = machine.setup()
    assert (again.returncode, again.stdout, machine.asked()) == (0, "", "")


def test_changed_pins_install_again(machine):
    machine.setup()
    machine.log.unlink()
    with (machine.checkout / "constraints.txt").open("a") as constraints:
        constraints.write("another==1.0\n")
    assert machine.setup().returncode == 0
    assert "--editable" in machine.asked()
    assert "-m venv" not in machine.asked()


def test_without_java_an_ordinary_user_is_told_the_command(machine):
    (machine.bin / "java").unlink()
    result = machine.setup()
    assert result.returncode == 1
    command = "sudo apt-get install -y --no-install-recommends openjdk-17-jdk-headless"
    assert command in result.stderr
    assert "-m venv" not in machine.asked()


def test_a_missing_library_is_named_by_its_package(machine):
    machine.script("ldconfig", "#!/bin/bash\necho libc.so.6\n")
    assert "install -y --no-install-recommends libgomp1" in machine.setup().stderr


def test_root_installs_what_is_missing(machine):
    (machine.bin / "java").unlink()
    machine.script("id", "#!/bin/bash\necho 0\n")
    machine.script("apt-get", f'#!/bin/bash\necho "apt-get $*" >> "{machine.log}"\n')
    result = machine.setup()
    assert result.returncode == 0, result.stderr
    assert "install -y --no-install-recommends openjdk-17-jdk-headless" in machine.asked()


def test_a_failing_apt_stops_for_what_is_needed_only(machine):
    machine.script("id", "#!/bin/bash\necho 0\n")
    machine.script("apt-get", "#!/bin/bash\nexit 100\n")
    assert machine.setup().returncode == 0  # Maven and Chromium are merely useful
    (machine.checkout / ".venv" / ".penstock-setup").unlink()
    (machine.bin / "java").unlink()
    result = machine.setup()
    assert result.returncode == 1
    assert "could not install openjdk-17-jdk-headless; mend apt" in result.stderr


def test_a_small_disk_stops_before_the_download(machine):
    machine.free_gib(3)
    result = machine.setup()
    assert result.returncode == 1
    assert "3 GiB free here, 12 GiB needed" in result.stderr
    assert machine.asked().count("--editable") == machine.asked().count("--offline") == 1


def test_a_second_checkout_needs_neither_network_nor_room(machine):
    machine.free_gib(3)
    Path(f"{machine.log}.cache").touch()
    result = machine.setup()
    assert result.returncode == 0
    assert "download" not in result.stdout
    assert machine.asked().count("--editable") == machine.asked().count("--offline") == 1
