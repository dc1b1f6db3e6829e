"""A client of Flink's REST interface: jobs, checkpoints, lag, cancelling, savepoints."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from infra.errors import ServiceError

ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})
POLL_SECONDS = 0.2
Vertices = tuple[tuple[str, str], ...]


class FlinkRestError(ServiceError):
    """The REST interface gave no usable answer."""


@dataclass(frozen=True)
class Job:
    """A job as the cluster lists it.

    Args:
        id: Flink's id.
        name: ``pipeline.name``.
        state: CREATED, INITIALIZING, RUNNING, RESTARTING, FAILING, FAILED, CANCELLING,
            CANCELED, FINISHED or SUSPENDED.
        started_ms: time of its submission, ms since the epoch.
    """

    id: str
    name: str
    state: str
    started_ms: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Checkpoints:
    """What is known of a job's checkpoints.

    Args:
        completed: how many were completed since the JobManager started.
        failed: how many were not.
        last_ms: end of the newest completed one, ms since the epoch; 0 without any.
        last_id: its number; 0 without any.
        duration_ms: how long it took.
        state_bytes: size of its state.
        path: URI to restore from, "" without any.
    """

    completed: int
    failed: int
    last_ms: int
    last_id: int
    duration_ms: int
    state_bytes: int
    path: str


@dataclass(frozen=True)
class JobGraph:
    """What a job consists of.

    Args:
        vertices: id and name of each.
        changed_ms: last change of the job's state, ms since the epoch.
    """

    vertices: Vertices
    changed_ms: int


class FlinkRest:
    """Calls of one cluster; holds no connection between calls.

    Args:
        host: address of the JobManager.
        port: its REST port.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, host: str, port: int, timeout: float = 3.0) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout

    def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """One request.

        Raises:
            FlinkRestError: no answer, a refusal, or no JSON.
        """
        link = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            content = None if body is None else json.dumps(body)
            link.request(method, path, content, {"Content-Type": "application/json"})
            answer = link.getresponse()
            text = answer.read().decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise FlinkRestError(
                f"Flink at {self.host}:{self.port} does not answer: {error}",
                "Run: penstock status",
            ) from error
        finally:
            link.close()
        if not 200 <= answer.status < 300:
            raise FlinkRestError(f"Flink refused {method} {path}: {answer.status} {text[:300]}")
        try:
            found = json.loads(text) if text else {}
        except ValueError as error:
            raise FlinkRestError(f"Flink answered {path} with no JSON") from error
        return found if isinstance(found, dict) else {"list": found}

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        listed = self.call("GET", "/jobs/overview").get("jobs", [])
        found = [Job(j["jid"], j["name"], j["state"], int(j["start-time"])) for j in listed]
        return sorted(found, key=lambda job: -job.started_ms)

    def find(self, name: str) -> Job | None:
        """The job of a name: the one that lives, else the one that ended last."""
        named = [job for job in self.jobs() if job.name == name]
        return next((job for job in named if not job.ended), named[0] if named else None)

    def checkpoints(self, job: str) -> Checkpoints:
        """Counts and the newest completed checkpoint."""
        found = self.call("GET", f"/jobs/{job}/checkpoints")
        counts = found.get("counts") or {}
        latest = found.get("latest") or {}
        last = latest.get("completed") or {}
        # After a restart of the JobManager only the restored one is known.
        path = last.get("external_path") or (latest.get("restored") or {}).get("external_path")
        return Checkpoints(
            completed=int(counts.get("completed", 0)),
            failed=int(counts.get("failed", 0)),
            last_ms=int(last.get("latest_ack_timestamp", 0)),
            last_id=int(last.get("id", 0)),
            duration_ms=int(last.get("end_to_end_duration", 0)),
            state_bytes=int(last.get("state_size", 0)),
            path=str(path or ""),
        )

    def checkpoint_interval_ms(self, job: str) -> int:
        """Time between checkpoints; 0 where a job takes none."""
        found = self.call("GET", f"/jobs/{job}/checkpoints/config").get("interval", 0)
        return int(found) if 0 < int(found) < 2**62 else 0

    def restarts(self, job: str) -> int:
        """How often Flink itself restarted a job since the JobManager started."""
        listed = self.call("GET", f"/jobs/{job}/metrics?get=numRestarts").get("list", [])
        return int(float(listed[0]["value"])) if listed else 0

    def graph(self, job: str) -> JobGraph:
        """The job's vertices, and when its state changed last."""
        found = self.call("GET", f"/jobs/{job}")
        times = (found.get("timestamps") or {}).values()
        return JobGraph(
            vertices=tuple((each["id"], each["name"]) for each in found.get("vertices", [])),
            changed_ms=max((int(time_ms) for time_ms in times), default=0),
        )

    def vertex_metric(self, job: str, vertex: str, ending: str, how: str) -> float | None:
        """A measure of a vertex over its subtasks, None where it has none.

        Args:
            job: id of the job.
            vertex: id of the vertex.
            ending: last part of the metric's name.
            how: "sum" or "max"; several metrics of that ending are taken together likewise.
        """
        path = f"/jobs/{job}/vertices/{vertex}/subtasks/metrics"
        listed = self.call("GET", path).get("list", [])
        names = [
            each["id"]
            for each in listed
            if each["id"] == ending or each["id"].endswith(f".{ending}")
        ]
        if not names:
            return None
        asked = ",".join(quote(name, safe="") for name in names)
        found = self.call("GET", f"{path}?get={asked}&agg={how}").get("list", [])
        values = [float(each[how]) for each in found if how in each]
        if not values:
            return None
        return sum(values) if how == "sum" else max(values)

    def lag(self, job: str, vertices: Vertices) -> int | None:
        """Records that the sources have not read yet; None before they tell."""
        found = [
            self.vertex_metric(job, vertex, "pendingRecords", "sum")
            for vertex, name in vertices
            if "Source" in name
        ]
        told = [value for value in found if value is not None]
        return int(sum(told)) if told else None

    def back_pressure(self, job: str, vertices: Vertices) -> float:
        """Largest share of a second, 0 to 1, that a vertex spent held back by the next one."""
        found = [
            self.vertex_metric(job, vertex, "backPressuredTimeMsPerSecond", "max") or 0.0
            for vertex, _ in vertices
        ]
        return min(1.0, max(found, default=0.0) / 1000)

    def cancel(self, job: str, timeout: float = 30.0) -> bool:
        """Cancel a job and wait for its end; whether it ended in time."""
        self.call("PATCH", f"/jobs/{job}?mode=cancel")
        return self.wait_for_end(job, timeout)

    def wait_for_end(self, job: str, timeout: float) -> bool:
        """Wait until a job has ended; whether it did in time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = self.call("GET", f"/jobs/{job}").get("state", "")
            if found in ENDED:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def savepoint(self, job: str, folder: str, *, stop: bool = False, timeout: float = 60.0) -> str:
        """Take a savepoint, and end the job with it if ``stop``; returns its URI.

        Raises:
            FlinkRestError: it failed, or did not come in time.
        """
        if stop:
            body: dict[str, object] = {"targetDirectory": folder, "drain": False}
            path = f"/jobs/{job}/stop"
        else:
            body = {"target-directory": folder, "cancel-job": False}
            path = f"/jobs/{job}/savepoints"
        trigger = self.call("POST", path, body)["request-id"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = self.call("GET", f"/jobs/{job}/savepoints/{trigger}")
            if found.get("status", {}).get("id") == "COMPLETED":
                operation = found.get("operation", {})
                if "location" in operation:
                    return str(operation["location"])
                cause = str(operation.get("failure-cause", {}).get("class", "no reason told"))
                raise FlinkRestError(f"the savepoint of job {job} failed: {cause}")
            time.sleep(POLL_SECONDS)
        raise FlinkRestError(
            f"no savepoint of job {job} within {timeout:.0f} s",
            "Look at the job's checkpoints on Flink's pages",
        )
