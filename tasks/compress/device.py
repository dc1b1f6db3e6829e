"""Devices that models are made for, as far as a plan depends on them."""

from __future__ import annotations

from dataclasses import dataclass


class CompressError(ValueError):
    """A request that cannot be planned or carried out; says what, where, and what can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A kind of machine.

    Attributes:
        name: As it is asked for.
        describes: What stands behind the name.
        memory_mb: Address space that the process may use there.
        threads: Cores that one model gets.
        timed_here: Milliseconds measured on this machine are those of the device. Elsewhere only
            ratios are promised, and times are measured on the device itself.
        four_bits: Its runtime reads weights of 4 bits (operator set 21).
    """

    name: str
    describes: str
    memory_mb: int
    threads: int
    timed_here: bool
    four_bits: bool

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.memory_mb < 1 or self.threads < 1:
            raise CompressError(f"device {self.name}: memory_mb and threads must be at least 1")


DEVICES = {
    device.name: device
    for device in (
        Device(
            name="server-core",
            describes="one core of a server like this one",
            memory_mb=8_192,
            threads=1,
            timed_here=True,
            four_bits=True,
        ),
        Device(
            name="box-2gb",
            describes="a box on the line: 2 GB in all, two cores like these, one for the camera",
            memory_mb=2_048,
            threads=1,
            timed_here=True,
            four_bits=True,
        ),
        Device(
            name="arm-board",
            describes="a 64-bit ARM board with 1 GB to spare",
            memory_mb=1_024,
            threads=4,
            timed_here=False,
            four_bits=True,
        ),
        Device(
            name="phone",
            describes="an app on a phone, with 512 MB for the model",
            memory_mb=512,
            threads=2,
            timed_here=False,
            four_bits=False,
        ),
    )
}


def device_named(name: str) -> Device:
    """Return a device.

    Raises:
        CompressError: There is none of that name; lists those there are.
    """
    if name not in DEVICES:
        known = "; ".join(f"{one.name} ({one.describes})" for one in DEVICES.values())
        raise CompressError(f"device {name!r} is unknown; there are {known}")
    return DEVICES[name]
