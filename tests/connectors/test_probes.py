"""Probes of this machine, and the tables between commands."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from connectors.job_table import jobs_from_table, jobs_to_table
from connectors.probes import Probes, from_table, record, to_table
from kernels.scheduling.jobs import Cluster
from kernels.scheduling.trace import TraceConfig, TraceGenerator


@pytest.fixture(scope="module")
def series():
    with Probes() as probes:
        return record(probes, 0.6, 0.2)


def test_many_series_are_read_by_name(series):
    assert len(series.names) == len(set(series.names))
    assert {"cpu.percent", "memory.available_gib", "load.1", "processes"} < set(series.names)
    if sys.platform == "linux":
        assert len(series.names) >= 200
    assert series.values.shape == (3, len(series.names))
    values = dict(zip(series.names, series.values[-1], strict=True))
    assert values["memory.total_gib"] > values["memory.available_gib"] > 0
    assert min(v for n, v in values.items() if n.endswith("_per_s")) >= 0


def test_counters_come_as_rates():
    with Probes() as probes:
        sum(i * i for i in range(5_000_000))
        rates = [v for n, v in probes.read().items() if n.endswith("user_seconds_per_s")]
    assert 0.05 < sum(rates) <= 1.1 * len(rates)


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is not None, reason="pynvml is installed")
def test_without_nvml_it_says_so(series):
    with Probes() as probes:
        assert probes.without_devices == "pynvml is not installed"
    assert not [name for name in series.names if name.startswith("device.")]


class NvmlError(Exception):
    pass


def nvml(**changes):
    """What pynvml answers for a machine of one device that has no thermometer."""

    def broken(*_):
        raise NvmlError("Not Supported")

    answers = {
        "NVMLError": NvmlError,
        "NVML_CLOCK_GRAPHICS": 0,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "NVML_PCIE_UTIL_TX_BYTES": 0,
        "NVML_PCIE_UTIL_RX_BYTES": 1,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=55, memory=20),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=4 * 2**30, free=12 * 2**30),
        "nvmlDeviceGetPowerUsage": lambda _: 250_000,
        "nvmlDeviceGetTemperature": broken,
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [1, 2],
        "nvmlDeviceGetPcieThroughput": lambda _, way: 10 + way,
        "nvmlDeviceGetClockInfo": lambda _, clock: 1_000 + clock,
    }
    return SimpleNamespace(**(answers | changes))


def test_devices_are_read_in_our_units(monkeypatch):
    """No device here: the library's answers are made up, its names and units are its own."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    with Probes() as probes:
        assert probes.without_devices == ""
        found = {n: v for n, v in probes.read().items() if n.startswith("device.")}
    assert found["device.0.busy_percent"] == 55
    assert found["device.0.memory_gib"] == 4
    assert found["device.0.watts"] == 250
    assert (found["device.0.graphics_mhz"], found["device.0.memory_mhz"]) == (1_000, 1_002)
    assert "device.0.celsius" not in found
    assert not [n for n in probes.read() if n.startswith("device.")]  # closed


def test_a_machine_without_driver_says_so(monkeypatch):
    def no_driver():
        raise NvmlError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlInit=no_driver))
    with Probes() as probes:
        assert "Driver Not Loaded" in probes.without_devices
        assert probes.read()


def test_series_survive_their_table(series):
    found = from_table(to_table(series))
    assert found.names == tuple(n for n in series.names)
    assert found.every == pytest.approx(series.every)
    np.testing.assert_array_equal(found.values, series.values)
    with pytest.raises(ValueError, match="penstock schedule profile"):
        from_table(pa.table({"cpu": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="equal steps"):
        from_table(pa.table({"second": [1.0, 2.0, 5.0], "cpu": [1.0, 2.0, 3.0]}))
    with Probes() as probes, pytest.raises(ValueError, match="at most at half"):
        record(probes, 1.0, 1.0)


def test_jobs_survive_their_table():
    jobs = TraceGenerator(TraceConfig(jobs=30), Cluster(), 1).day(0)
    assert jobs_from_table(jobs_to_table(jobs), "here") == jobs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["kind"]), "column kind missing"),
        (lambda t: t.slice(0, 0), "no jobs"),
        (lambda t: t.set_column(3, "devices", pa.array(["many"] * 3)), "numbers are needed"),
        (lambda t: t.set_column(3, "devices", pa.array([1, None, 1])), "row 2: devices is empty"),
        (lambda t: t.set_column(7, "utilization", pa.array([0.5, 0.5, 50.0])), "row 3.*percent"),
    ],
)
def test_a_table_that_holds_no_jobs_is_refused(change, message):
    table = jobs_to_table(TraceGenerator(TraceConfig(jobs=3), Cluster(), 1).day(0))
    with pytest.raises(ValueError, match=f"jobs.csv.*{message}"):
        jobs_from_table(change(table), "jobs.csv")
