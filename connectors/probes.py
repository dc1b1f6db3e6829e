"""Probes of a worker: CPUs, memory, disks, networks, kernel counters, and its devices by NVML.

Every series has a name such as ``cpu.0.user_percent`` or ``device.3.memory_gib``. Counters come
as rates per second since the reading before, the rest as it is. NVIDIA devices are read where the
package ``pynvml`` is there and finds a driver; where not, `Probes.without_devices` says why.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from kernels.scheduling.series import Series

GIB = 2.0**30
VMSTAT = Path("/proc/vmstat")
PRESSURE = Path("/proc/pressure")
LEVELS = ("nr_", "workingset_nodes")  # of vmstat: amounts, all others count up
PASSING = ("loop", "ram", "veth")  # disks and networks that come and go


class Probes:
    """Reads all series of this machine; use it in a ``with`` block, NVML wants to be closed.

    Attributes:
        without_devices: Why no devices are read; empty when they are.
    """

    def __init__(self) -> None:
        self.without_devices = ""
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError:
            self.without_devices = "pynvml is not installed"
        else:
            self._open_devices()
        self._counters = self._count()
        self._time = time.monotonic()

    def __enter__(self) -> Probes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give NVML back; reading goes on without devices."""
        if self._handles:
            self._handles = []
            self._nvml.nvmlShutdown()
            self.without_devices = "the probes were closed"

    def read(self) -> dict[str, float]:
        """Return the value of every series by name, rates since the reading before."""
        now, counters = time.monotonic(), self._count()
        seconds = max(now - self._time, 1e-3)
        rates = {
            f"{name}_per_s": max(0.0, value - self._counters.get(name, value)) / seconds
            for name, value in counters.items()
        }
        self._counters, self._time = counters, now
        return _levels() | self._devices() | rates

    def _count(self) -> dict[str, float]:
        found = {f"system.{k}": float(v) for k, v in psutil.cpu_stats()._asdict().items()}
        for i, times in enumerate(psutil.cpu_times(percpu=True)):
            found |= {f"cpu.{i}.{k}_seconds": float(v) for k, v in times._asdict().items()}
        for kind, all_parts in (
            ("disk", psutil.disk_io_counters(perdisk=True)),
            ("net", psutil.net_io_counters(pernic=True)),
        ):
            for part, counts in (all_parts or {}).items():
                if not part.startswith(PASSING):
                    values = counts._asdict().items()
                    found |= {f"{kind}.{part}.{k}": float(v) for k, v in values}
        vmstat = _vmstat().items()
        return found | {f"vm.{k}": v for k, v in vmstat if not k.startswith(LEVELS)}

    def _open_devices(self) -> None:
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        except self._nvml.NVMLError as error:
            self.without_devices = f"NVML finds no driver or device ({error})"
        else:
            self.without_devices = "" if count else "NVML counts no device"

    def _devices(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for i, handle in enumerate(self._handles):
            for name, value in _device_readings(self._nvml, handle).items():
                try:
                    found[f"device.{i}.{name}"] = float(value())
                except self._nvml.NVMLError:  # not every device has every sensor
                    continue
        return found


def record(probes: Probes, seconds: float, every: float) -> Series:
    """Read probes for a while; blocks.

    Args:
        probes: What is read.
        seconds: How long.
        every: Seconds between readings.

    Returns:
        The series that every reading had; names of devices that vanish are left out.

    Raises:
        ValueError: There would be no two readings.
    """
    if not 0 < every <= seconds / 2:
        raise ValueError(
            f"record: every must lie above 0 s and at most at half of {seconds} s, got {every}"
        )
    started = time.monotonic()
    rows: list[Mapping[str, float]] = []
    for number in range(1, round(seconds / every) + 1):
        time.sleep(max(0.0, started + number * every - time.monotonic()))
        rows.append(probes.read())
    names = tuple(sorted(set.intersection(*(set(row) for row in rows))))
    return Series(names, every, np.array([[row[name] for name in names] for row in rows]))


def to_table(series: Series) -> pa.Table:
    """Return series as a table: ``second``, then a column for each."""
    seconds = series.every * np.arange(1, len(series.values) + 1)
    columns = {"second": seconds} | dict(zip(series.names, series.values.T, strict=True))
    return pa.table(columns)


def from_table(table: pa.Table) -> Series:
    """Return the series of a table that `to_table` made.

    Raises:
        ValueError: It has no regular column ``second``, or nothing beside it.
    """
    if "second" not in table.column_names or table.num_columns < 2 or table.num_rows < 2:
        raise ValueError(
            "probes: a column second, others beside it and two rows are needed; "
            "record them by penstock schedule profile"
        )
    steps = np.diff(table["second"].to_numpy().astype(np.float64))
    if not np.allclose(steps, steps[0]) or steps[0] <= 0:
        raise ValueError("probes: the column second must rise in equal steps")
    names = tuple(name for name in table.column_names if name != "second")
    values = np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])
    return Series(names, float(steps[0]), values)


def _levels() -> dict[str, float]:
    found = dict(zip(("load.1", "load.5", "load.15"), psutil.getloadavg(), strict=True))
    found["cpu.percent"] = psutil.cpu_percent()
    for i, percent in enumerate(psutil.cpu_percent(percpu=True)):
        found[f"cpu.{i}.percent"] = percent
    for i, frequency in enumerate(psutil.cpu_freq(percpu=True) or ()):
        found[f"cpu.{i}.mhz"] = float(frequency.current)
    for kind, memory in (("memory", psutil.virtual_memory()), ("swap", psutil.swap_memory())):
        for name, value in memory._asdict().items():
            percent = name == "percent"
            found[f"{kind}.{name}" if percent else f"{kind}.{name}_gib"] = (
                float(value) if percent else value / GIB
            )
    for chip, sensors in getattr(psutil, "sensors_temperatures", dict)().items():
        for i, sensor in enumerate(sensors):
            found[f"temperature.{chip}.{i}"] = float(sensor.current)
    found["processes"] = float(len(psutil.pids()))
    found |= {f"vm.{k}": v for k, v in _vmstat().items() if k.startswith(LEVELS)}
    return found | _pressure()


def _vmstat() -> dict[str, float]:
    """Linux's counters of virtual memory; elsewhere none."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: float(value) for name, value in (line.split() for line in lines)}


def _pressure() -> dict[str, float]:
    """Share of time in which something waits (Linux's pressure stall information), percent."""
    found = {}
    for kind in ("cpu", "io", "memory"):
        try:
            lines = (PRESSURE / kind).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            who, *pairs = line.split()
            values = dict(pair.split("=") for pair in pairs)
            for span in ("avg10", "avg60", "avg300"):
                found[f"pressure.{kind}.{who}.{span}"] = float(values[span])
    return found


def _device_readings(nvml: Any, handle: Any) -> dict[str, Callable[[], float]]:
    clocks = {
        "graphics": nvml.NVML_CLOCK_GRAPHICS,
        "memory": nvml.NVML_CLOCK_MEM,
        "sm": nvml.NVML_CLOCK_SM,
    }
    made: dict[str, Callable[[], float]] = {
        "busy_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_busy_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).memory,
        "memory_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB,
        "memory_free_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).free / GIB,
        "watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1_000,
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "processes": lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        "pcie_sent_kib_per_s": lambda: nvml.nvmlDeviceGetPcieThroughput(
            handle, nvml.NVML_PCIE_UTIL_TX_BYTES
        ),
        "pcie_received_kib_per_s": lambda: nvml.nvmlDeviceGetPcieThroughput(
            handle, nvml.NVML_PCIE_UTIL_RX_BYTES
        ),
    }
    for name, clock in clocks.items():
        made[f"{name}_mhz"] = partial(nvml.nvmlDeviceGetClockInfo, handle, clock)
    return made
