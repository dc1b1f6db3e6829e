"""The pinned set starts: a set that resolves but cannot run must fail here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest

STACK = (
    *("prefect", "torch", "torchvision", "pyflink", "torch_geometric"),
    *("shap", "tenseal", "mlflow"),
)

FLINK_JOB = """
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.expressions import col
from pyflink.table.udf import udf

@udf(result_type=DataTypes.BIGINT())
def doubled(amount):
    return 2 * amount

tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
tables.get_config().set("parallelism.default", "1")
rows = tables.from_elements([(1, 10), (2, 20), (3, 30)], ["id", "amount"])
with rows.select(col("id"), doubled(col("amount"))).execute().collect() as results:
    print("RESULT", sorted((row[0], row[1]) for row in results), flush=True)
"""


@pytest.fixture
def run_python(end_with_run) -> Iterator[Callable[[str], str]]:
    """Runs code in a process group of its own, which is gone after the test in any case."""
    processes = []

    def run(code: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        processes.append(process)
        end_with_run(process.pid)
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-2000:]
        return output

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        end_with_run(-process.pid)


def test_all_eight_packages_import_together(run_python):
    """One process, so that clashes of native libraries show."""
    code = "; ".join(f"import {name}" for name in STACK)
    assert run_python(f"{code}; print('imported')").strip().endswith("imported")


def test_a_prefect_flow_and_its_subflow_run_against_a_real_server(prefect_server):
    from prefect import flow, task
    from prefect.client.orchestration import get_client

    @task
    def double(number: int) -> int:
        return 2 * number

    @flow
    def add_doubles(numbers: list[int]) -> int:
        return sum(double(number) for number in numbers)

    @flow
    def outer(numbers: list[int]) -> int:
        return add_doubles(numbers)  # a flow within a flow is created by a call of its own

    assert outer([1, 2, 3]) == 12

    with get_client(sync_client=True) as client:
        assert str(client.api_url).startswith(prefect_server)
        runs = client.read_flow_runs()
    states = [run.state_name for run in runs if run.parameters == {"numbers": [1, 2, 3]}]
    assert states == ["Completed", "Completed"]


def test_an_mlflow_run_is_tracked_by_a_real_server(mlflow_server, tmp_path):
    import mlflow

    note = tmp_path / "note.txt"
    note.write_text("kept")
    mlflow.set_experiment("environment")
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
        mlflow.log_artifact(str(note))

    query = f"{mlflow_server}/api/2.0/mlflow/runs/get?run_id={run.info.run_id}"
    with urllib.request.urlopen(query, timeout=30) as answer:
        stored = json.load(answer)["run"]
    assert stored["data"]["metrics"][0]["value"] == 0.5
    kept = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt")
    assert kept == "kept"


def test_files_logged_with_and_without_the_server_are_read_both_ways(mlflow_server):
    """One artifact folder: a server may be started or stopped between two runs."""
    from mlflow import MlflowClient

    from infra.services.environment import mlflow_backend_url
    from infra.settings import get_settings

    settings = get_settings()
    served = MlflowClient(tracking_uri=mlflow_server)
    direct = MlflowClient(tracking_uri=mlflow_backend_url(settings))
    for name, writer, reader in (("one", served, direct), ("two", direct, served)):
        experiment = writer.create_experiment(f"both-ways-{name}")
        run = writer.create_run(experiment).info
        assert run.artifact_uri.startswith((settings.home / "mlartifacts").as_uri())
        writer.log_text(run.run_id, name, "note.txt")
        listed = [entry.path for entry in reader.list_artifacts(run.run_id)]
        assert listed == ["note.txt"]

        # The registry accepts such a run's files, whoever serves it.
        reader.create_registered_model(f"both-ways-{name}")
        version = reader.create_model_version(
            f"both-ways-{name}", f"{run.artifact_uri}", run_id=run.run_id
        )
        writer.set_registered_model_alias(f"both-ways-{name}", "champion", version.version)
        assert reader.get_model_version_by_alias(version.name, "champion").run_id == run.run_id


@pytest.mark.long
def test_a_pyflink_job_runs_a_python_function(run_python):
    assert "RESULT [(1, 20), (2, 40), (3, 60)]" in run_python(FLINK_JOB)


def test_an_encrypted_sum_decrypts_to_the_sum():
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=[60, 40, 40, 60],
    )
    context.global_scale = 2**40
    encrypted = tenseal.ckks_vector(context, [1.0, 2.0, 3.0])
    other = tenseal.ckks_vector(context, [0.5, 0.5, 0.5])

    assert (encrypted + other).decrypt() == pytest.approx([1.5, 2.5, 3.5], abs=1e-5)


def test_shap_values_of_a_tree_add_up_to_its_prediction():
    import numpy as np
    import shap
    from sklearn.tree import DecisionTreeRegressor

    random = np.random.default_rng(0)
    table = random.normal(size=(200, 3))
    tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(table, table[:, 0] * 2)
    explainer = shap.TreeExplainer(tree)

    values = explainer.shap_values(table[:1])

    total = values.sum() + float(np.ravel(explainer.expected_value)[0])
    assert total == pytest.approx(tree.predict(table[:1])[0])
    assert abs(values[0, 0]) > abs(values[0, 1:]).sum()
