"""``penstock-client`` in an empty environment: from nothing to scores, against a running scorer."""

from __future__ import annotations

import csv
import json
import subprocess

import numpy as np
import pytest

from connectors.private.bundle import write_bundle
from tasks.privacy.compile import compile_model
from tests.benchmarks._api_server import running_private
from tests.lite_venv import UnreachableError, bare, make_environment
from tests.tasks.privacy.models import made, rows

PROJECT = "connectors/private/client"
TOKEN = "a" * 26


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    try:
        return make_environment(tmp_path_factory.mktemp("client"), PROJECT)
    except UnreachableError as error:
        pytest.skip(f"the packages of penstock-client cannot be had: {error}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    write_bundle(folder / "small", compile_model(made("linear"), rows(300)), "small")
    settings = {"models": folder / "small", "log_level": "WARNING"}
    with running_private(folder / "home", settings, f"bank-a:score:{TOKEN}") as running:
        yield running


LIST = """
import importlib.metadata as m
print(*sorted(d.metadata["Name"].lower() for d in m.distributions()))
"""
FILES = """
import penstock_client, pathlib
print(*(p.name for p in pathlib.Path(penstock_client.__file__).parent.rglob("*")))
"""


def test_it_has_few_packages_and_no_server(programs):
    listed, found = (
        subprocess.run(
            [programs / "python", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env=bare(),
        ).stdout.split()
        for program in (LIST, FILES)
    )
    assert {"penstock-client", "tenseal", "numpy", "cryptography", "zstandard"} <= set(listed)
    assert not {"torch", "numba", "fastapi", "starlette", "mlflow", "prefect"} & set(listed)
    assert len(listed) <= 8
    assert "session.py" in found
    assert not {"server", "score.py", "compile.py", "bundle.py"} & set(found)


@pytest.mark.long
def test_from_an_empty_folder_to_scores(programs, server, tmp_path):
    def run(*arguments):
        done = subprocess.run(
            [programs / "penstock-client", *arguments],
            cwd=tmp_path,
            env=bare() | {"PENSTOCK_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    url = ("--url", server.url)
    np.save(tmp_path / "rows.npy", rows(25, 4))
    assert run("models", *url)["name"] == "small"
    run("offer", "small", *url)
    run("keygen", "offer.json", "--tenant", "bank-a")
    run("register", "owner.key", *url)
    assert run("encrypt", "offer.json", "owner.key", "rows.npy")["rows"] == 25
    run("score", "offer.json", "owner.key", "rows.sealed", *url)
    run("decrypt", "offer.json", "owner.key", "rows.sealed", "rows.answer")
    with (tmp_path / "scores.csv").open() as file:
        found = [float(line["probability"]) for line in csv.DictReader(file)]
    clear = 1 / (1 + np.exp(-made("linear").score(rows(25, 4))[:, 0]))
    np.testing.assert_allclose(found, clear, atol=1e-5)
