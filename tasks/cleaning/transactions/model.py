"""What is known of a table of transactions: a ``[[transactions]]`` of a contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tasks.cleaning.profile.times import require_zone


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionRules:
    """Columns by what they mean, and bounds. What is left at 0 or empty is not checked.

    Attributes:
        time: When a transaction happened: ISO time or seconds since 1970.
        id: Its number, which occurs once.
        arrival: When it was received.
        amount: How much.
        currency: Code of ISO 4217.
        account: Account, card or customer.
        merchant: Who was paid.
        latitude: Degrees north of the place.
        longitude: Degrees east.
        opened: When the account was opened.
        label_time: When its label (fraud or not) was known.
        zone: Zone of local times; "" for UTC.
        near_seconds: Same account, merchant, amount and currency within so many seconds are a copy.
        late_seconds: How far behind the newest time seen so far a transaction may arrive.
        ahead_seconds: How far its time may lie after its arrival (clocks differ).
        label_delay_seconds: Least time that a label takes.
        max_speed_kmh: Fastest way from one place of an account to its next.
        near_km: Distances below this are no travel: places are not known more exactly.
        confidence: How sure an inferred line is, by its name; a person's lines are not in it.
    """

    time: str
    id: str = ""
    arrival: str = ""
    amount: str = ""
    currency: str = ""
    account: str = ""
    merchant: str = ""
    latitude: str = ""
    longitude: str = ""
    opened: str = ""
    label_time: str = ""
    zone: str = ""
    near_seconds: float = 0.0
    late_seconds: float = 0.0
    ahead_seconds: float = 60.0
    label_delay_seconds: float = 0.0
    max_speed_kmh: float = 0.0
    near_km: float = 25.0
    confidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject bounds that nothing could meet and bounds on columns that are not named.

        Raises:
            ValueError: With the line at fault and how to mend it.
        """
        if not self.time:
            raise ValueError("transactions need the column of their time")
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and not 0.0 <= value < float("inf"):
                raise ValueError(f"{f.name} is {value}; give a positive number, 0 for no check")
        needs = {
            "near_seconds": ("account", "amount"),
            "max_speed_kmh": ("account", "latitude", "longitude"),
            "label_delay_seconds": ("label_time",),
        }
        for line, columns in needs.items():
            missing = [name for name in columns if not getattr(self, name)]
            if getattr(self, line) and missing:
                raise ValueError(f"{line} needs the column of {' and of '.join(missing)}")
        if bool(self.latitude) != bool(self.longitude):
            raise ValueError("latitude and longitude are named together")
        require_zone(self.zone)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is named, once."""
        named = (
            self.time, self.id, self.arrival, self.amount, self.currency, self.account,
            self.merchant, self.latitude, self.longitude, self.opened, self.label_time,
        )  # fmt: skip
        return tuple(dict.fromkeys(name for name in named if name))
