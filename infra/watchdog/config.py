"""What the watchdog watches, and how patient it is; one small file that it reads again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from infra.errors import ConfigurationError
from infra.files import write_atomically
from infra.settings import Settings

WATCHED = (
    "kafka",
    "flink-zookeeper",
    "flink-jobmanager",
    "flink-taskmanager",
    "flink-standby",
    "redis",
    "store-writer",
    "api",
)


@dataclass(frozen=True)
class WatchdogConfig:
    """Job, remedies and patience of the watchdog.

    Args:
        job: name of the Flink job; "" watches the processes alone.
        submit: command that submits the job; ``--restore URI`` is added where there is a
            checkpoint. Without it a job that failed for good is reported, not repaired.
        services: services brought back when they crash (never those stopped on purpose).
        holder: process that is changing the job, 0 for none; see :mod:`infra.watchdog.hold`.
        holder_since: when that process was started, seconds since the epoch; 0 if it gave up.
        poll_s: seconds between looks at the processes.
        look_s: seconds between looks at the job, at least ``poll_s``.
        checkpoint_age_s: a job is overdue when its last checkpoint is older than one interval,
            twice the time the last one took, and this.
        start_grace_s: patience after a start, a restart or a remedy before a job is overdue.
        loop_s: a job that restarts again and again is overdue after this long without a
            checkpoint, whatever its grace.
        missing_s: how long a job may be absent before it is submitted again.
        hang_s: how long a live JobManager may be silent before it is replaced.
        backoff_s: seconds after a remedy before the next one; doubled each time.
        backoff_max_s: its limit.
        max_remedies: so many remedies within ``window_s``, or without a checkpoint between
            them, are the last: then it gives up until a checkpoint completes by other means.
        window_s: see ``max_remedies``.
        standby_s: how long a crashed TaskManager waits while the job comes back on the other one:
            its start would take the cores that the job needs.
        lag_limit: records behind from which on the state is "lagging"; 0 for never.
    """

    job: str = ""
    submit: tuple[str, ...] = ()
    services: tuple[str, ...] = WATCHED
    holder: int = 0
    holder_since: float = 0.0
    poll_s: float = 0.5
    look_s: float = 1.0
    checkpoint_age_s: float = 7.0
    start_grace_s: float = 25.0
    loop_s: float = 90.0
    missing_s: float = 12.0
    hang_s: float = 20.0
    backoff_s: float = 5.0
    backoff_max_s: float = 60.0
    max_remedies: int = 8
    window_s: float = 900.0
    standby_s: float = 25.0
    lag_limit: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_s") and not value > 0:
                raise ConfigurationError(
                    f"watchdog: {field.name} is {value}", "Give a number of seconds above 0"
                )
        if self.max_remedies < 1:
            raise ConfigurationError("watchdog: max_remedies is below 1", "Give at least 1")
        if self.backoff_max_s < self.backoff_s:
            raise ConfigurationError(
                "watchdog: backoff_max_s is below backoff_s", "Raise backoff_max_s"
            )


def config_path(settings: Settings) -> Path:
    """The file; whoever starts the job writes it."""
    return settings.home / "watchdog" / "config.json"


def save_config(settings: Settings, config: WatchdogConfig) -> None:
    """Write the file whole; a running watchdog takes it up at its next look."""
    write_atomically(config_path(settings), json.dumps(asdict(config), indent=1))


def load_config(settings: Settings) -> WatchdogConfig:
    """Read the file; without one, the defaults.

    Raises:
        ConfigurationError: it holds something else.
    """
    path = config_path(settings)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(WatchdogConfig)}
        if not isinstance(found, dict) or not found.keys() <= known:
            raise ConfigurationError(f"{path} holds unknown fields", "Remove it, or start anew")
        for name in ("submit", "services"):
            if name in found:
                found[name] = tuple(found[name])
        return WatchdogConfig(**found)
    except FileNotFoundError:
        return WatchdogConfig()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: {error}", "Remove it, or start anew") from error
