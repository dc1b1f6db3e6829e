"""``schedule_policy.json``: the tuned settings, and what is known of earlier jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kernels.scheduling.history import History
from kernels.scheduling.jobs import Cluster
from kernels.scheduling.policy import Policy
from kernels.scheduling.policy_config import PolicyConfig

VERSION = 1


class PolicyFileError(Exception):
    """A policy file that cannot be used; the message names the file and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """Contents of a policy file.

    Attributes:
        policy: Settings.
        cluster: Devices for which they were tuned.
        history: Earlier jobs by kind.
        thresholds: Scores between the queues, descending; a job above the first is in the first.
        profile: What it was tuned from: number of jobs, hours, costs, probes; for people.
    """

    policy: PolicyConfig
    cluster: Cluster
    history: History
    thresholds: tuple[float, ...] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if list(self.thresholds) != sorted(self.thresholds, reverse=True):
            raise ValueError("thresholds must descend; write them anew by tuning")

    def make(self) -> Policy:
        """Return a policy that starts with this history; the file's own is not changed."""
        history = History.from_record(self.history.record())
        return Policy(self.policy, self.cluster, history)


def write_policy(path: Path, content: PolicyFile) -> None:
    """Write a policy file; a reader sees the old one or the new one, never half of it.

    Args:
        path: Where.
        content: What.
    """
    record = {
        "version": VERSION,
        "policy": asdict(content.policy),
        "cluster": asdict(content.cluster),
        "thresholds": list(content.thresholds),
        "profile": dict(content.profile),
        "history": content.history.record(),
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_policy(path: Path) -> PolicyFile:
    """Read a policy file.

    Args:
        path: Where.

    Raises:
        PolicyFileError: It is absent, no JSON, of another version, or a setting is unknown,
            missing or out of range.
    """
    fix = "write it by penstock schedule tune"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyFileError(f"{path} cannot be read ({error.strerror}); {fix}") from error
    except ValueError as error:
        raise PolicyFileError(f"{path} holds no JSON ({error}); {fix}") from error
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise PolicyFileError(f"{path} is no policy file of version {VERSION}; {fix}")
    try:
        return PolicyFile(
            policy=_settings(PolicyConfig, record.get("policy")),
            cluster=_settings(Cluster, record.get("cluster")),
            history=History.from_record(record.get("history") or {}),
            thresholds=tuple(float(each) for each in record["thresholds"]),
            profile=record.get("profile") or {},
        )
    except KeyError as error:
        raise PolicyFileError(f"{path}: {error} is missing; {fix}") from error
    except (TypeError, ValueError) as error:
        raise PolicyFileError(f"{path}: {error}; mend the value, or {fix}") from error


def _settings(kind: type[Any], record: Any) -> Any:
    """Return a config from its record; every field must be there, of its type."""
    name = kind.__name__
    if not isinstance(record, dict):
        raise ValueError(f"{name} is missing")  # noqa: TRY004 - told as a fault of the file
    known = {each.name: each.type for each in fields(kind)}
    if unknown := sorted(set(record) - set(known)):
        raise ValueError(f"{name} has no setting {', '.join(unknown)}")
    if missing := sorted(set(known) - set(record)):
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    types: dict[Any, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float)}
    for setting, value in record.items():
        wanted = types[known[setting]]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,)):
            raise ValueError(f"{name}.{setting} must be {known[setting]}, got {value!r}")
    return kind(**record)
