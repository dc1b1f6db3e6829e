"""The API against requests nobody should send: made from its own document, and hostile ones."""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks._api_server import TOKEN, ApiProcess, running_api
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._hostile import hostile

if TYPE_CHECKING:
    import schemathesis

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
CALL_SECONDS = 10.0
WIRE_SECONDS = 4.0
ALIVE_EVERY = 25


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = _parser().parse_args(argv)
    if args.smoke:
        args.examples, args.flips = 4, 20
    home = Path(tempfile.mkdtemp(prefix="penstock-api-fuzz-"))
    try:
        settings = {
            "model": args.bundle or _model(args),
            "read_seconds": 1.0,
            "idle_seconds": 2.0,
            "reload_seconds": 0,
            "log_level": "WARNING",
        }
        with running_api(home, settings) as api:
            tally = Tally()
            documented(api, args, tally)
            wires(api, args, tally)
            result = tally.figures(api)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    show(result)
    emit(result, args)
    return 1 if result["server_errors"] or result["hangs"] else 0


class Tally:
    """What came back."""

    def __init__(self) -> None:
        self.cases = 0
        self.hangs: list[str] = []
        self.server_errors: list[str] = []
        self.mismatches: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.longest = 0.0

    def answered(self, name: str, status: str, seconds: float) -> None:
        """Note an answer; turning a request away under load is no failure."""
        self.cases += 1
        self.statuses[status] += 1
        self.longest = max(self.longest, seconds)
        if status.startswith("5") and status != "503":
            self.server_errors.append(f"{name}: {status}")

    def silent(self, name: str) -> None:
        """Note a case without an answer in time."""
        self.cases += 1
        self.hangs.append(name)

    def figures(self, api: ApiProcess) -> dict[str, Any]:
        """Return the benchmark's keys."""
        log = api.log.read_text(errors="replace")
        alive = api.process.poll() is None
        return {
            "cases": self.cases,
            "server_errors": len(self.server_errors) + log.count("Traceback") + (not alive),
            "hangs": len(self.hangs),
            "undocumented": sum(self.mismatches.values()),
            "statuses": dict(sorted(self.statuses.items())),
            "longest_ms": self.longest * 1e3,
            "examples": (self.server_errors + self.hangs + list(self.mismatches))[:20],
        }


def documented(api: ApiProcess, args: argparse.Namespace, tally: Tally) -> None:
    """Send what schemathesis makes of the OpenAPI document, right and wrong."""
    import schemathesis

    document = api.call("GET", "/v1/openapi.json").data
    schema = schemathesis.openapi.from_dict(document)
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                _exercise(api, operation, mode, args, tally)
            except _NothingToDamageError:
                continue


class _NothingToDamageError(Exception):
    """An operation that takes nothing has no wrong requests."""


def _exercise(
    api: ApiProcess,
    operation: schemathesis.APIOperation[Any, Any, Any],
    mode: schemathesis.GenerationMode,
    args: argparse.Namespace,
    tally: Tally,
) -> None:
    import requests
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis.errors import HypothesisException
    from schemathesis import checks
    from schemathesis.core.failures import FailureGroup

    session = requests.Session()
    chosen = checks.CHECKS.get_by_names(list(CHECKS))
    name = f"{operation.method.upper()} {operation.path} {mode.value}"

    @seed(args.seed)
    @settings(
        max_examples=args.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {TOKEN}"}
        began = time.perf_counter()
        try:
            response = case.call(base_url=api.url, session=session, timeout=CALL_SECONDS)
        except requests.Timeout:
            tally.silent(name)
            return
        except (requests.RequestException, UnicodeError, ValueError):
            return  # the client cannot send it
        tally.answered(name, str(response.status_code), time.perf_counter() - began)
        try:
            case.validate_response(response, checks=chosen)
        except FailureGroup as group:
            for failure in group.exceptions:
                tally.mismatches[f"{name}: {failure}"[:300]] += 1

    try:
        send()
    except HypothesisException as error:
        raise _NothingToDamageError(str(error)) from error
    finally:
        session.close()


def wires(api: ApiProcess, args: argparse.Namespace, tally: Tally) -> None:
    """Send the hostile corpus as bytes, and see again and again that others are still served."""
    for number, (name, content) in enumerate(hostile(TOKEN, args.seed, args.flips)):
        began = time.perf_counter()
        status = _sent(api.port, content)
        if status is None:
            tally.silent(name)
        else:
            tally.answered(name, status, time.perf_counter() - began)
        if number % ALIVE_EVERY == 0:
            answer = api.call("GET", "/health/live", timeout=CALL_SECONDS)
            if answer.status != 200:
                tally.server_errors.append(f"not alive after {name}")


def _sent(port: int, content: bytes) -> str | None:
    """Return the status that came back, ``closed`` without one; None when nothing happens."""
    with socket.create_connection(("127.0.0.1", port), timeout=WIRE_SECONDS) as connection:
        received = b""
        try:
            connection.sendall(content)
            while True:
                data = connection.recv(65_536)
                if not data:
                    break
                received += data
        except TimeoutError:
            if not received:
                return None
        except OSError:
            pass
    return received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.") else "closed"


def show(result: dict[str, Any]) -> None:
    """Print the table for people."""
    names = (
        ("cases", "requests"),
        ("server_errors", "server errors"),
        ("hangs", "without an answer in time"),
        ("undocumented", "answers that differ from the document"),
        ("longest_ms", "longest answer, ms"),
    )
    rows = [(text, result[name]) for name, text in names]
    table("Hostile requests", ("figure", "value"), rows)
    for example in result["examples"]:
        print(f"  {json.dumps(example)}")


def _model(args: argparse.Namespace) -> Path:
    from infra.settings import get_settings
    from tests.benchmarks._model import serving_model

    folder = args.models or get_settings().home / "bench" / "models"
    return serving_model(folder, graph=False, smoke=True).folder


def _parser() -> argparse.ArgumentParser:
    options = parser("api-fuzz", "The API against hostile requests: no error, no silence.")
    options.add_argument("--examples", type=int, default=90, help="per operation, right and wrong")
    options.add_argument("--flips", type=int, default=700, help="damaged copies of valid requests")
    options.add_argument("--models", type=Path, help="folder of the benchmark's models")
    options.add_argument("--bundle", type=Path, help="serve this bundle")
    return options


if __name__ == "__main__":
    run_program("api-fuzz", main)
