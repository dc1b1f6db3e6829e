"""What a run cost: seconds, energy, money."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CostConfig:
    """What an hour of the devices costs; 0 where it is not known.

    Attributes:
        watts: Power that the run's devices draw together, from the data sheet or a meter.
        per_hour: Price of an hour of them.
        currency: Currency of the price.
    """

    watts: float = 0.0
    per_hour: float = 0.0
    currency: str = "EUR"

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.watts < 0 or self.per_hour < 0:
            raise ValueError("cost.watts and cost.per_hour must not be negative; 0 is unknown")


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a run's call.

    Attributes:
        seconds: Wall seconds.
        cpu_seconds: CPU seconds of the process, all threads.
        energy_wh: Watt hours, an estimate from the power; None where that is not known.
        price: Price, None where that of an hour is not known.
        currency: Its currency.
    """

    seconds: float
    cpu_seconds: float
    energy_wh: float | None
    price: float | None
    currency: str

    def __str__(self) -> str:
        told = [f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} CPU s)"]
        if self.energy_wh is not None:
            told.append(f"{self.energy_wh:.2f} Wh")
        if self.price is not None:
            told.append(f"{self.price:.2f} {self.currency}")
        return ", ".join(told)


def cost_of(seconds: float, cpu_seconds: float, config: CostConfig) -> Cost:
    """Return what a run of some seconds cost.

    >>> print(cost_of(7_200, 14_000, CostConfig(watts=150, per_hour=1.5)))
    7200.0 s (14000.0 CPU s), 300.00 Wh, 3.00 EUR
    """
    hours = seconds / 3_600
    energy = hours * config.watts if config.watts else None
    price = hours * config.per_hour if config.per_hour else None
    return Cost(seconds, cpu_seconds, energy, price, config.currency)
