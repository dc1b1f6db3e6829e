"""MLflow tracking: one run with parameters, tags, dataset, batched metrics and artifacts.

Conventions, the same for every job: experiment ``penstock/<dataset>``; tags ``git_commit``,
``data_sha256`` and ``dataset``; nested settings flattened to ``model.trees.rounds``.
"""

from __future__ import annotations

import logging
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.uris import without_login

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from kernels.runtime.callbacks import StepMetrics

logger = logging.getLogger(__name__)

MAX_PARAM_LENGTH = 6_000
METRICS_PER_BATCH = 1_000
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Has MLflow's pages open with runs and metrics instead of the views for language models."""
PARAMS_PER_BATCH = 100


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is about.

    Attributes:
        dataset: Name of the dataset config; names the experiment.
        name: Name of the run, for people.
        data_digest: SHA-256 of the input file.
        params: Settings, nested as they come.
        tags: Further tags.
        git_commit: Commit of the code; empty: asked from git.
        uri: Tracking server or database; empty: ``MLFLOW_TRACKING_URI``.
        resume: Run to go on with; empty: a new one.
    """

    dataset: str
    name: str
    data_digest: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    git_commit: str = ""
    uri: str = ""
    resume: str = ""


class TrackedRun:
    """A running MLflow run; every method may be called from any thread.

    Attributes:
        run_id: Id of the run.
        experiment_id: Id of its experiment.
        uri: Tracking URI.
    """

    def __init__(self, client: Any, run_id: str, experiment_id: str, uri: str) -> None:
        self.client = client
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.uri = uri

    @property
    def page(self) -> str:
        """Address of the run in the MLflow pages (without a login), or its id without a server."""
        if self.uri.startswith("http"):
            return (
                f"{without_login(self.uri)}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
            )
        return f"run {self.run_id}"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings, flattened; long values are cut."""
        from mlflow.entities import Param

        flat = [Param(k, str(v)[:MAX_PARAM_LENGTH]) for k, v in flatten_params(params).items()]
        for start in range(0, len(flat), PARAMS_PER_BATCH):
            self.client.log_batch(self.run_id, params=flat[start : start + PARAMS_PER_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log numbers in one request; NaN and infinity are left out, MLflow refuses them."""
        self.send_metrics(make_metrics(metrics, step), synchronous=True)

    def send_metrics(self, metrics: list[Metric], *, synchronous: bool = False) -> list[Any]:
        """Send prepared metrics in batches; return MLflow's handles of those under way."""
        handles = []
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            batch = metrics[start : start + METRICS_PER_BATCH]
            handles.append(self.client.log_batch(self.run_id, batch, synchronous=synchronous))
        return [h for h in handles if h is not None]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags in one request."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def log_file(self, path: Path, folder: str = "") -> None:
        """Attach a file."""
        self.client.log_artifact(self.run_id, str(path), folder or None)

    def log_text(self, text: str, name: str) -> None:
        """Attach a text under ``name``."""
        self.client.log_text(self.run_id, text, name)

    def log_dataset(self, name: str, digest: str, rows: int, source: Path) -> None:
        """Record the input data, so that the run's page names it with its digest."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="local",
            source=json.dumps({"uri": source.name}),
            profile=json.dumps({"num_rows": rows}),
        )
        entry = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
        self.client.log_inputs(self.run_id, [entry])


@contextmanager
def tracked_run(request: RunRequest) -> Iterator[TrackedRun]:
    """Open or resume a run; it ends FINISHED, FAILED on an error, KILLED on Ctrl-C."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import RunStatus

    uri = request.uri or mlflow.get_tracking_uri()
    client = MlflowClient(tracking_uri=uri)
    experiment = ensure_experiment(client, f"penstock/{request.dataset}")
    tags = {
        "dataset": request.dataset,
        "git_commit": request.git_commit or git_commit(),
        "data_sha256": request.data_digest,
        **request.tags,
    }
    run_id = request.resume
    if run_id:
        client.set_terminated(run_id, RunStatus.to_string(RunStatus.RUNNING))
    else:
        run_id = client.create_run(experiment, run_name=request.name, tags=tags).info.run_id
    run = TrackedRun(client, run_id, experiment, uri)
    status = RunStatus.FAILED
    try:
        if not request.resume:
            run.log_params(request.params)
        yield run
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        client.set_terminated(run.run_id, RunStatus.to_string(status))


def unfinished_run(dataset: str, key: str, *, uri: str = "") -> str:
    """Return the id of a run of the same inputs that was killed or failed; empty if none.

    Args:
        dataset: Names the experiment.
        key: Value of the run's tag ``job_key``.
        uri: Tracking URI; empty: ``MLFLOW_TRACKING_URI``.
    """
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri or mlflow.get_tracking_uri())
    experiment = ensure_experiment(client, f"penstock/{dataset}")
    found = client.search_runs(
        [experiment], f"tags.job_key = '{key}'", order_by=["start_time DESC"], max_results=1
    )
    return found[0].info.run_id if found and found[0].info.status != "FINISHED" else ""


@contextmanager
def resumed_run(run_id: str, *, uri: str = "") -> Iterator[TrackedRun]:
    """Write to an existing run from a later step; its status stays as it is."""
    import mlflow
    from mlflow import MlflowClient

    uri = uri or mlflow.get_tracking_uri()
    client = MlflowClient(tracking_uri=uri)
    info = client.get_run(run_id).info
    yield TrackedRun(client, run_id, info.experiment_id, uri)


def ensure_experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, created on first use (also when two start at once)."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, tags=EXPERIMENT_TAGS))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise RuntimeError(
            f"MLflow experiment {name!r} is deleted; restore it or delete it for good (mlflow gc)"
        )
    return str(found.experiment_id)


class MlflowCallback:
    """Sends training metrics to MLflow without ever holding up a step.

    Metrics gather in memory and leave in the background when ``every`` steps or ``seconds`` have
    passed; ``close`` waits for what is under way.
    """

    def __init__(
        self, run: TrackedRun, *, prefix: str = "", every: int = 50, seconds: float = 2.0
    ) -> None:
        self._run = run
        self._prefix = prefix
        self._every = every
        self._seconds = seconds
        self._pending: list[Metric] = []
        self._steps = 0
        self._sent = time.monotonic()
        self._handles: list[Any] = []

    def on_step(self, metrics: StepMetrics) -> None:
        """Keep the numbers of one step (loss, rate, gradient norm, throughput)."""
        self._pending += make_metrics(metrics.as_dict(), metrics.step, self._prefix)
        self._steps += 1
        if self._steps >= self._every or time.monotonic() - self._sent >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Hand everything gathered to the background sender."""
        pending, self._pending, self._steps = self._pending, [], 0
        self._sent = time.monotonic()
        if pending:
            self._handles += self._run.send_metrics(pending)

    def close(self) -> None:
        """Send the rest and wait until the server has everything."""
        self.flush()
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.wait()


def make_metrics(metrics: Mapping[str, float], step: int, prefix: str = "") -> list[Metric]:
    """Return MLflow metrics of the finite numbers."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(prefix + name, float(value), now, step)
        for name, value in metrics.items()
        if math.isfinite(value)
    ]


def flatten_params(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings and dataclasses to dotted names; lists become comma lists.

    >>> flatten_params({"model": {"depth": 3, "sizes": [8, 4]}})
    {'model.depth': 3, 'model.sizes': '8,4'}
    """
    flat: dict[str, Any] = {}
    for name, given in params.items():
        value = asdict(given) if is_dataclass(given) and not isinstance(given, type) else given
        if isinstance(value, Mapping):
            flat |= flatten_params(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            simple = all(not isinstance(v, Mapping) for v in value)
            flat |= (
                {prefix + name: ",".join(str(v) for v in value)}
                if simple
                else flatten_params({str(i): v for i, v in enumerate(value)}, f"{prefix}{name}.")
            )
        else:
            flat[prefix + name] = value
    return flat


def git_commit(folder: Path | None = None) -> str:
    """Return the commit of the code, with ``-dirty`` when it was changed; else ``unknown``."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            cwd=folder or Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
