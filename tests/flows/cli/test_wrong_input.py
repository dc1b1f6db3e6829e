"""Wrong input, full disks and Ctrl-C through the real command: one line, and nothing to mistrust.

Every case runs ``penstock`` in a process of its own on a small simulated bank. Prefect and MLflow
are the shared servers of the test run, but for one run that brings up Prefect's temporary one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.files import read_table, write_table
from tests.processes import unmeasured

PENSTOCK = Path(sys.executable).parent / "penstock"
PATIENCE = 240  # seconds; only a hanging command takes that long
CONFIG = """
name = "{name}"
time = "t"
time_unit = "s"
time_origin = "2018-04-01T00:00:00"
amount = "amount"
event_id = "tx_id"
label = "fraud"
label_delay_days = 3

[[entities]]
column = "customer"

[split]
train_days = 14
test_days = 7
folds = 1
validation_folds = 1
warmup_days = 7
"""


class Command:
    """One ``penstock`` command in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, home: Path, *words: str | Path, **variables: str) -> None:
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        environment = {k: v for k, v in unmeasured().items() if k != "PENSTOCK_DEBUG"}
        environment |= {"PENSTOCK_HOME": str(home), "OMP_NUM_THREADS": "1", **variables}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [PENSTOCK, *map(str, words)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """End what is left of the group."""
        for process in self.group():
            process.kill()
        self.process.wait()

    def group(self) -> list[psutil.Process]:
        """Living processes of the command's group and session."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = self.process.pid in (os.getpgid(process.pid), os.getsid(process.pid))
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def wait_for(self, sign: Callable[[], object], what: str) -> None:
        """Wait until something shows that a step is under way."""
        deadline = time.monotonic() + PATIENCE
        while not sign():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"no {what} seen: {self.shown()} {self.told()}")
            time.sleep(0.002)

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def shown(self) -> str:
        """Standard output."""
        return self.out.read_text(encoding="utf-8")

    def told(self) -> list[str]:
        """Lines of standard error."""
        lines = self.err.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.strip()]


def assert_one_line(command: Command, *parts: str) -> None:
    """The command told its failure in one line that holds these parts."""
    told = command.told()
    assert len(told) == 1, "\n".join(told)
    assert told[0].startswith("penstock: ")
    for part in parts:
        assert part in told[0]


def assert_interrupted(command: Command, home: Path) -> None:
    """Ctrl-C ended the command with 130, one line, no process and no draft left."""
    try:
        code = command.process.wait(PATIENCE)
    finally:
        left = command.group()
        command.kill()
    assert code == 130, (command.told(), command.shown(), sorted(home.rglob("done.json")))
    assert left == []
    assert_one_line(command, "interrupted", "run the command again to resume")
    assert drafts(home) == []


def drafts(home: Path) -> list[Path]:
    """Half-written files and folders of the work."""
    hidden = [p for part in ("work", "reports") for p in (home / part).rglob(".*")]
    return hidden + list(home.rglob("*.tmp"))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``bank.parquet``, simulated by the command itself, and ``messy.csv``."""
    folder = tmp_path_factory.mktemp("wrong-input")
    size = ("--cards", "120", "--terminals", "60", "--days", "42")
    frauds = ("--bad-terminals-per-day", "0.5", "--bad-cards-per-day", "1")
    made = Command(folder, folder / "home", "simulate", "cards", "bank.parquet", *size, *frauds)
    assert made.end() == 0, made.told()
    write_table(messy(read_table(folder / "bank.parquet")), folder / "messy.csv")
    (folder / "messy.toml").write_text(CONFIG.format(name="messy"), encoding="utf-8")
    return folder


def messy(table: pa.Table) -> pa.Table:
    """The same payments with everything that must be tolerated, in known numbers."""
    rng = np.random.default_rng(3)
    columns = {name: table.column(name).to_numpy().astype(object) for name in table.column_names}
    t, fraud = columns["t"], columns["fraud"]
    fraud[(t >= 20 * 86_400) & (t < 21 * 86_400)] = 0  # a day without frauds
    rows = rng.permutation(np.flatnonzero(t < 40 * 86_400))
    amount = columns["amount_cents"] / 100
    amount[rows[:5]] = None
    amount[rows[5:9]] = float("nan")
    columns["customer"] = np.array([f"card-{c}" for c in columns["customer"]], object)
    columns["customer"][rows[9:12]] = None
    fraud[rows[12:42]] = None
    order = np.concatenate([rng.permutation(len(t)), rows[50:57]])  # seven rows come twice
    ids = np.array([f"tx/{i}" for i in columns["tx_id"]], object)
    return pa.table(
        {
            "tx_id": pa.array(ids[order]),
            "t": pa.array(t[order], pa.int64()),
            "customer": pa.array(columns["customer"][order]),
            "amount": pa.array(amount[order], pa.float64()),
            "fraud": pa.array(fraud[order], pa.int8()),
        }
    )


@pytest.fixture(scope="module")
def shared(prefect_server: str, mlflow_server: str) -> dict[str, str]:
    """Variables that point a command to the servers of the test run."""
    return {
        "PENSTOCK_PREFECT_API_URL": prefect_server,
        "PENSTOCK_MLFLOW_TRACKING_URI": mlflow_server,
    }


TRAIN = ("fraud", "train", "messy.csv", "--config", "messy.toml", "--no-graph", "--json")


@pytest.fixture(scope="module")
def trained(bank: Path, shared: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """Home and record of an undisturbed training on the messy data."""
    home = bank / "undisturbed"
    command = Command(bank, home, *TRAIN, "--report", "report.html", **shared)
    assert command.end() == 0, command.told()
    return home, json.loads(command.shown().splitlines()[-1])


# --- tolerated


def test_what_is_tolerated_is_counted(bank: Path) -> None:
    command = Command(
        bank, bank / "home", "fraud", "check", "messy.csv", "--config", "messy.toml", "--json"
    )
    assert command.end() == 0, command.told()
    report = json.loads(command.shown())
    rows = read_table(bank / "bank.parquet").num_rows
    assert report["by_rule"] == {"missing-amount": 9, "missing-entity": 3, "duplicate-of": 7}
    assert report["rows_in"] == rows + 7
    assert report["rows_used"] == rows - 12
    assert report["unlabelled"] == 30
    assert report["unsorted"] > rows / 2
    assert report["days_without_fraud"] >= 1
    assert list(report["entities"]) == ["customer"]


@pytest.mark.long
def test_what_is_tolerated_trains_scores_and_is_reported(
    bank: Path, shared: dict[str, str], trained: tuple[Path, dict[str, Any]]
) -> None:
    home, record = trained
    assert record["promotion"]["promoted"], record["promotion"]["reason"]
    page = (bank / "report.html").read_text(encoding="utf-8")
    for rule in ("missing-amount", "missing-entity", "duplicate-of"):
        assert rule in page
    (part,) = (home / "quarantine" / "messy").rglob("*.parquet")
    assert pq.read_table(part).num_rows == 19
    words = ("fraud", "score", "messy.csv", "--config", "messy.toml", "--out", "scores.csv")
    command = Command(bank, home, *words, "--days", "2", **shared)
    assert command.end() == 0, command.told()
    scores = read_table(bank / "scores.csv")
    assert scores.num_rows > 20
    assert all(id_.startswith("card-") for id_ in scores.column("customer").to_pylist())


# --- fatal: files


def change(bank: Path, name: str, column: str, values: object) -> Path:
    """The messy file with one column replaced, or dropped where ``values`` is None."""
    table = read_table(bank / "messy.csv")
    at = table.column_names.index(column)
    table = table.remove_column(at)
    if values is not None:
        table = table.add_column(at, column, pa.array([values] * table.num_rows))
    return write_table(table, bank / name)


def broken(bank: Path, case: str) -> Path:
    """A file with the named fault."""
    path = bank / f"{case}.parquet"
    whole = (bank / "bank.parquet").read_bytes()
    if case == "empty":
        path.touch()
    elif case == "header-only":
        path = bank / "header-only.csv"
        path.write_text("tx_id,t,customer,amount,fraud\n", encoding="utf-8")
    elif case == "cut-off":
        path.write_bytes(whole[: len(whole) // 2])
    elif case == "overwritten":
        path.write_bytes(whole[:1_000] + bytes(9_000) + whole[10_000:])
    elif case == "no-column":
        change(bank, path.name, "customer", None)
    elif case == "wrong-type":
        change(bank, path.name, "amount", "much")
    elif case == "one-class":
        change(bank, path.name, "fraud", 0)
    return path


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("missing", "no such file; check the path"),
        ("empty", "the file is empty (0 bytes); export it again"),
        ("header-only", "has columns but no rows; export it again"),
        ("cut-off", "no readable Parquet"),
        ("overwritten", "no readable Parquet"),
        ("no-column", "no column 'customer'; the file has"),
        ("wrong-type", "column 'amount' holds text that spells no numbers"),
        ("one-class", "labels are legitimate rows: training needs both classes"),
    ],
)
def test_a_bad_file_is_one_line(bank: Path, case: str, what: str) -> None:
    path = broken(bank, case)
    words = ("fraud", "check", path.name, "--config", "messy.toml", "--quarantine", "refused")
    command = Command(bank, bank / "home", *words)
    assert command.end() == 1
    assert_one_line(command, path.name, what)
    assert not (bank / "refused" / path.name).exists()


@pytest.mark.long
def test_a_bad_file_stops_training_with_the_same_line(bank: Path, shared: dict[str, str]) -> None:
    home = bank / "refusing"
    absent = Command(bank, home, "fraud", "train", "nowhere.csv", "--config", "messy.toml")
    assert absent.end() == 1
    assert_one_line(absent, "nowhere.csv: no such file")
    assert not (home / "prefect").exists(), "no server comes up for a misspelt path"
    broken(bank, "one-class")
    words = ("fraud", "train", "one-class.parquet", "--config", "messy.toml", "--no-graph")
    command = Command(bank, home, *words, **shared)
    assert command.end() == 1
    assert_one_line(command, "one-class.parquet", "training needs both classes")
    # The rows were checked, which scoring may use; nothing was trained.
    assert {path.parent.parent.name for path in (home / "work").rglob("done.json")} == {"checked"}
    assert drafts(home) == []


# --- fatal: the machine


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        command = Command(tmp_path, tmp_path / "home", "up", "mlflow", PENSTOCK_MLFLOW_PORT=port)
        assert command.end() == 1
    assert_one_line(command, f"port {port} of 127.0.0.1 is in use", "set PENSTOCK_MLFLOW_PORT")
    assert not (tmp_path / "home" / "services" / "mlflow.json").exists()


def test_no_java_is_found_before_it_is_needed(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "JAVA_HOME": ""}
    command = Command(tmp_path, tmp_path / "home", "doctor", "--json", **bare)
    assert command.end() == 1
    findings = {each["check"]: each for each in json.loads(command.shown())}
    assert findings["Java"]["level"] == "problem"
    assert "apt-get install -y openjdk-17" in findings["Java"]["fix"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root: run the tests as root to try a full disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Use up all space of a disk."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as handle:
        try:
            while True:
                handle.write(bytes(2**16))
        except OSError:
            return path


@pytest.mark.long
def test_a_full_disk_is_one_line_and_the_next_run_succeeds(
    bank: Path,
    small_disk: Path,
    shared: dict[str, str],
    trained: tuple[Path, dict[str, Any]],
) -> None:
    home = small_disk / "home"
    again = (*TRAIN, "--no-promote")
    filler = fill(small_disk)
    at_once = Command(bank, home, *again, **shared)
    assert at_once.end() == 1
    assert_one_line(at_once, "the disk is full", str(home), "free some space")
    simulate = Command(bank, home, "simulate", "cards", small_disk / "new.parquet")
    assert simulate.end() == 1
    assert_one_line(simulate, "the disk is full", "new.parquet")
    filler.unlink()
    assert list(small_disk.rglob("*.parquet")) == []

    later = Command(bank, home, *again, **shared)
    later.wait_for(lambda: list(home.glob("work/checked/*/done.json")), "checked data")
    filler = fill(small_disk)
    assert later.end() == 1
    assert_one_line(later, "the disk is full")
    filler.unlink()
    assert drafts(home) == []

    finished = Command(bank, home, *again, **shared)
    assert finished.end() == 0, finished.told()
    assert json.loads(finished.shown().splitlines()[-1])["test"] == trained[1]["test"]


def test_a_full_standard_output_is_one_line(bank: Path) -> None:
    words = [PENSTOCK, "fraud", "check", "messy.csv", "--config", "messy.toml"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            words, cwd=bank, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("penstock: the disk is full")
    assert done.stderr.count("\n") == 1


# --- Ctrl-C


def test_ctrl_c_while_simulating_leaves_no_file(tmp_path: Path) -> None:
    words = ("simulate", "cards", "many.parquet", "--cards", "20000", "--days", "400")
    command = Command(tmp_path, tmp_path / "home", *words)
    command.wait_for(lambda: list(tmp_path.glob(".many*")), "temporary file")
    command.interrupt()
    assert_interrupted(command, tmp_path)
    assert not list(tmp_path.glob("*many*"))


def test_ctrl_c_while_checking_ends_in_order(bank: Path, tmp_path: Path) -> None:
    table = read_table(bank / "messy.csv")
    large = write_table(pa.concat_tables([table] * 200), tmp_path / "large.csv")
    words = ("fraud", "check", large, "--config", bank / "messy.toml")
    command = Command(tmp_path, tmp_path / "home", *words)
    maps = Path(f"/proc/{command.process.pid}/maps")
    command.wait_for(lambda: "polars" in maps.read_text(encoding="utf-8"), "reading of the table")
    command.interrupt()
    assert_interrupted(command, tmp_path)


@pytest.mark.long
def test_ctrl_c_in_every_step_of_training_resumes_to_the_same_result(
    bank: Path,
    shared: dict[str, str],
    trained: tuple[Path, dict[str, Any]],
) -> None:
    home, work = bank / "disturbed", bank / "disturbed" / "work"
    words = (*TRAIN, "--no-promote", "--report", "disturbed.html")
    # Without the shared server, Ctrl-C also reaches Prefect's temporary one.
    temporary = {k: v for k, v in shared.items() if k != "PENSTOCK_PREFECT_API_URL"}
    signs = {
        "checked": (lambda: list(work.glob("checked/.*")), shared),
        "features": (lambda: list(work.glob("features/.*")), shared),
        "folds": (lambda: list(work.glob("folds/.*")), temporary),
        "report": (lambda: list(work.glob("model/*/done.json")), shared),
    }
    finished: set[Path] = set()
    for step, (sign, variables) in signs.items():
        command = Command(bank, home, *words, **variables)
        command.wait_for(sign, f"sign of step {step}")
        command.interrupt()
        assert_interrupted(command, home)
        now = {path.parent.parent for path in work.rglob("done.json")}
        assert finished <= now, "a finished step is kept"
        finished = now
        assert not (bank / "disturbed.html").exists()
    stamps = {path: path.stat().st_mtime_ns for path in work.glob("*/*/done.json")}
    command = Command(bank, home, *words, **shared)
    assert command.end() == 0, command.told()
    record = json.loads(command.shown().splitlines()[-1])
    assert record["test"] == trained[1]["test"]
    assert record["active"] == trained[1]["active"]
    assert (bank / "disturbed.html").is_file()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "nothing is made twice"
