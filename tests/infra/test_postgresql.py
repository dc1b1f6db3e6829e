"""Both servers on a real PostgreSQL, where one is installed."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.services.ports import any_free_port
from infra.services.registry import end_service, start_service
from infra.services.state import load_state
from infra.settings import Settings

PASSWORD = "hunter2-secret"


def postgresql_programs() -> Path | None:
    """Folder of initdb and postgres, from the PATH or Debian's usual place."""
    for folder in [
        *(Path(entry) for entry in os.environ["PATH"].split(os.pathsep) if entry),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    ]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


@pytest.fixture(scope="module")
def postgresql(end_with_run):
    """Port of a fresh server with databases mlflow and prefect; its group ends with the test."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL absent: sudo apt-get install -y postgresql")
    identity: dict = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("running as root and no account 'postgres' to run PostgreSQL under")
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    process = None
    try:
        if identity:
            os.chown(folder, identity["user"], identity["group"])
        process, port = start_postgresql(programs, folder, identity)
        end_with_run(process.pid)
        create_databases(port)
        yield port
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGQUIT)
            process.wait(timeout=30)
            end_with_run(-process.pid)
        shutil.rmtree(folder)


def start_postgresql(programs: Path, folder: Path, identity: dict):
    """A cluster with password login only, on loopback."""
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = folder / "data"
    subprocess.run(
        [
            *(programs / "initdb", "-D", data, "-U", "penstock", "-A", "scram-sha-256"),
            *("--pwfile", secret, "--no-sync", "-E", "UTF8", "--locale", "C"),
        ],
        check=True,
        capture_output=True,
        cwd=folder,
        **identity,
    )
    port = any_free_port()
    options = ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=60")
    flags = [part for option in options for part in ("-c", option)]
    process = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
        **identity,
    )
    return process, port


def create_databases(port: int) -> None:
    """Wait for the server, then make a database for each of our servers."""
    import psycopg2

    deadline = time.monotonic() + 30
    while True:
        try:
            link = psycopg2.connect(
                host="127.0.0.1", port=port, user="penstock", password=PASSWORD, dbname="postgres"
            )
            break
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    link.autocommit = True
    with contextlib.closing(link), link.cursor() as cursor:
        cursor.execute("CREATE DATABASE mlflow")
        cursor.execute("CREATE DATABASE prefect")


@pytest.fixture(scope="module")
def servers(postgresql, tmp_path_factory):
    """Settings under which MLflow and Prefect run on that PostgreSQL."""
    login = f"postgresql://penstock:{PASSWORD}@127.0.0.1:{postgresql}"
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        mlflow_port=any_free_port(),
        prefect_port=any_free_port(),
        mlflow_backend_url=f"{login}/mlflow",
        prefect_database_url=f"{login}/prefect",
        service_timeout=240,
    )
    try:
        with ThreadPoolExecutor(2) as pool:
            for started in [
                pool.submit(start_service, settings, name) for name in ("mlflow", "prefect")
            ]:
                started.result()
        yield settings
    finally:
        end_service(settings, "mlflow")
        end_service(settings, "prefect")


def call(url: str, body: dict) -> dict:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.long
def test_both_servers_keep_their_data_in_postgresql(servers, postgresql):
    import psycopg2

    mlflow = f"http://127.0.0.1:{servers.mlflow_port}/api/2.0/mlflow"
    call(f"{mlflow}/experiments/create", {"name": "on-postgresql"})
    prefect = f"http://127.0.0.1:{servers.prefect_port}/api"
    call(f"{prefect}/flows/", {"name": "on-postgresql"})

    for database, query in (
        ("mlflow", "SELECT count(*) FROM experiments WHERE name = 'on-postgresql'"),
        ("prefect", "SELECT count(*) FROM flow WHERE name = 'on-postgresql'"),
    ):
        link = psycopg2.connect(
            host="127.0.0.1", port=postgresql, user="penstock", password=PASSWORD, dbname=database
        )
        with contextlib.closing(link), link.cursor() as cursor:
            cursor.execute(query)
            assert cursor.fetchone() == (1,)


@pytest.mark.long
def test_the_password_is_neither_logged_nor_shown(servers):
    import psutil

    for name in ("mlflow", "prefect"):
        state = load_state(servers, name)
        shown = " ".join(psutil.Process(state.pid).cmdline())
        record = (servers.services / f"{name}.json").read_text()
        log = Path(state.log).read_text()
        assert PASSWORD not in shown + record + log
