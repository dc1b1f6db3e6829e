"""``infra/setup.sh`` on machines that lack something, played with a PATH of our own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cut", "grep", "sha256sum", "awk", "dirname", "mkdir", "chmod", "sed")
TOOLS += ("rm", "mv", "cp", "stat", "touch", "basename", "make")
PIN = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if "uv==" in line)

# Stands for Python and for the uv that pip brings; writes down what was asked of it.
RECORDER = """#!/bin/bash
if [[ "$*" == --version ]]; then echo "{uv}"; exit; fi
echo "$(basename "$0") $*" >> "{log}"
case "$*" in
*"-m venv --clear"*)
    rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python
    echo "command = $0 $*" > .venv/pyvenv.cfg;;
*"-m pip install"*"--target"*)
    [[ ! -e "{log}.offline" ]] || exit 1
    target="${{@: -2:1}}"; mkdir -p "$target/bin"; cp "$0" "$target/bin/uv";;
*class_archive) [[ ! -e "{log}.full" ]] || {{ echo "disk full" >&2; exit 1; }};;
*--offline*) [[ -e "{log}.cache" ]] || exit 1;;&
*--editable*) cp "$0" .venv/bin/penstock;;
esac
"""
JAVA = "#!/bin/bash\necho 'openjdk version \"{}\"' >&2\n"


class Machine:
    """A checkout with the set-up files and a PATH that holds what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.log = folder / "log"
        (self.checkout / "infra").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("constraints.txt", "pyproject.toml", "infra/setup.sh", "Makefile"):
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.script("python3.11", RECORDER.format(log=self.log, uv=PIN.replace("==", " ")))
        self.script("id", "#!/bin/bash\necho 1000\n")
        self.script("java", JAVA.format("17.0.15"))
        self.script("ldconfig", "#!/bin/bash\necho libgomp.so.1\n")
        self.script("mvn", "#!/bin/bash\n")
        jars = self.checkout / "infra" / "jars" / "build.sh"
        jars.parent.mkdir()
        jars.write_text(f"#!/bin/bash\ntouch '{self.log}.jars'\n")
        jars.chmod(0o755)
        self.free_gib(100)

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def free_gib(self, amount: int) -> None:
        line = f"disk 1 1 {amount * 1048576} 1% /"
        self.script("df", f"#!/bin/bash\necho Filesystem\necho '{line}'\n")

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("infra/setup.sh", **variables)

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / words[0] if "/" in words[0] else words[0], *words[1:]],
            cwd=self.checkout,
            env={"PATH": str(self.bin), "HOME": str(self.home), "JVM_FOLDER": "/x"} | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def second_checkout(self) -> None:
        """Leave the cache filled as after a set-up elsewhere, and the network down."""
        assert self.setup().returncode == 0
        for flag in ("cache", "offline"):
            Path(f"{self.log}.{flag}").touch()
        shutil.rmtree(self.checkout / ".venv")
        self.log.unlink()

    def asked(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_everything_is_installed_under_the_constraints_once(machine):
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("setup: first set-up: up to 3 GB to download")
    # Useful packages that are missing do not stop it; the command is told.
    assert "sudo apt-get install -y --no-install-recommends chromium redis-server" in first.stdout
    # Nothing activates the environment: the last line says what can be typed now.
    last = first.stdout.splitlines()[-1]
    assert ".venv/bin/penstock" in last
    assert "source .venv/bin/activate" in last
    assert f"--constraint constraints.txt {PIN} --editable .[dev]" in machine.asked()
    assert f"pip install --quiet --disable-pip-version-check --target {machine.home}" in (
        machine.asked()
    )

    machine.log.unlink()
    jars = Path(f"{machine.log}.jars")
    jars.unlink()
    again = machine.setup()
    assert (again.returncode, again.stdout) == (0, "")
    # Only whether another Java, or other jars, want other archives of classes.
    assert machine.asked() == "python -m infra.services.class_archive\n"
    assert jars.exists()  # has a stamp of its own: the Java sources may have changed


def test_without_archives_of_classes_it_is_done_all_the_same(machine):
    Path(f"{machine.log}.full").touch()
    done = machine.setup()
    assert (done.returncode, done.stderr) == (0, "disk full\n")
    assert done.stdout.splitlines()[-1].startswith("setup: done")


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


def test_the_redis_of_the_distribution_is_not_left_running(machine):
    machine.script("id", "#!/bin/bash\necho 0\n")
    machine.script("apt-get", f'#!/bin/bash\necho "apt-get $*" >> "{machine.log}"\n')
    machine.script("systemctl", f'#!/bin/bash\necho "systemctl $*" >> "{machine.log}"\n')
    assert machine.setup().returncode == 0
    assert "systemctl disable --now redis-server" in machine.asked()


def test_a_failing_apt_stops_for_what_is_needed_only(machine):
    machine.script("id", "#!/bin/bash\necho 0\n")
    machine.script("apt-get", "#!/bin/bash\nexit 100\n")
    assert machine.setup().returncode == 0  # Chromium is merely useful
    (machine.checkout / ".venv" / ".penstock-setup").unlink()
    (machine.bin / "java").unlink()
    result = machine.setup()
    assert result.returncode == 1
    assert "could not install openjdk-17-jdk-headless; mend apt" in result.stderr


def test_another_java_than_17_is_like_none(machine):
    machine.script("java", JAVA.format("21.0.2"))
    result = machine.setup()
    assert result.returncode == 1
    assert "missing: openjdk-17-jdk-headless. Run: sudo apt-get install" in result.stderr


def test_a_java_17_that_is_not_in_use_is_named(machine, tmp_path):
    machine.script("java", JAVA.format("21.0.2"))
    home = tmp_path / "java-17-openjdk-amd64"
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(JAVA.format("17.0.15"))
    java.chmod(0o755)
    result = machine.setup(JVM_FOLDER=str(tmp_path))
    assert result.returncode == 1
    assert f"export JAVA_HOME={home}" in result.stderr
    assert machine.setup(JVM_FOLDER=str(tmp_path), JAVA_HOME=str(home)).returncode == 0


def test_a_small_disk_stops_before_anything_else(machine):
    machine.free_gib(3)
    (machine.bin / "java").unlink()
    result = machine.setup()
    assert result.returncode == 1
    assert result.stderr.startswith("setup: 3 GiB free here, 12 GiB needed")
    assert machine.asked() == ""


def test_a_second_checkout_needs_neither_network_nor_room(machine):
    machine.second_checkout()
    machine.free_gib(3)
    result = machine.setup()
    assert result.returncode == 0, result.stderr
    assert "download" not in result.stdout
    assert "--target" not in machine.asked()
    assert machine.asked().count("--editable") == machine.asked().count("--offline") == 1


def test_other_pins_than_those_of_the_cache_need_room_again(machine):
    machine.second_checkout()
    machine.free_gib(3)
    with (machine.checkout / "constraints.txt").open("a") as constraints:
        constraints.write("another==1.0\n")
    assert "12 GiB needed" in machine.setup().stderr


def test_a_uv_of_the_pinned_version_on_the_path_is_used(machine):
    shutil.copy(machine.bin / "python3.11", machine.bin / "uv")
    assert machine.setup().returncode == 0
    assert "--target" not in machine.asked()


def test_a_uv_of_another_version_is_not(machine):
    machine.script("uv", "#!/bin/bash\necho uv 0.0.1\n")
    assert machine.setup().returncode == 0
    assert "--target" in machine.asked()


def test_without_network_for_uv_it_stops_in_one_line(machine):
    Path(f"{machine.log}.offline").touch()
    result = machine.setup()
    assert result.returncode == 1
    assert (
        result.stderr == f"setup: could not fetch {PIN}; mend the network, then repeat make setup\n"
    )
    assert [path.name for path in (machine.home / ".cache/uv/penstock").iterdir()] == []


def test_a_moved_checkout_gets_a_new_environment(machine):
    assert machine.setup().returncode == 0
    machine.log.unlink()
    machine.checkout = machine.checkout.rename(machine.checkout.with_name("elsewhere"))
    told = machine.run("make", "status")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert machine.setup().returncode == 0
    assert f"-m venv --clear {machine.checkout}/.venv" in machine.asked()
    assert machine.run("make", "status").returncode == 0


@pytest.mark.parametrize("target", ["lint", "format", "status", "doctor", "down", "freeze"])
def test_commands_of_a_fresh_clone_name_make_setup(machine, target):
    told = machine.run("make", target)
    assert told.returncode == 2
    assert "run 'make setup' first" in told.stderr
    assert told.stderr.count("\n") == 1
