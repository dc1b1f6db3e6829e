"""``python -m connectors.private.server.server``: the scorer's server as a process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from connectors.api.http_run import BACKLOG, HttpRun, quiet_collector, serve_http, url_of
from connectors.api.server_settings import TOKENS, settings_parser
from connectors.listener import bound_listener
from connectors.private.owner_only import check_owner_only, write_owner_only
from connectors.private.server.settings import (
    PREFIX,
    PrivateSettings,
    private_settings,
)
from infra.errors import ConfigurationError, PenstockError, ServiceError
from infra.logging import configure_logging

if TYPE_CHECKING:
    import socket

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from connectors.private.server.service import PrivateService


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit code."""
    parser = settings_parser(
        PrivateSettings,
        "python -m connectors.private.server.server",
        f"Score ciphertexts. Every setting is a variable {PREFIX}NAME, too; tokens come from"
        f" {TOKENS} or a file alone.",
    )
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    try:
        settings = private_settings(**given)
        configure_logging(settings.log_level)
        serve(settings)
    except PenstockError as error:
        sys.stderr.write(f"penstock private: {error}\n")
        return 1
    return 0


def serve(settings: PrivateSettings, told: Callable[[str], None] = lambda _: None) -> None:
    """Serve until a signal comes.

    Args:
        settings: What, where and how.
        told: Called with the address once it is known; answers come soon after.

    Raises:
        PenstockError: It cannot start; the message names the remedy.
    """
    listener = bound_listener(
        settings.host,
        settings.port,
        what="the scorer's server",
        fix=f"Stop the program that holds the port, or set {PREFIX}PORT",
    )
    with listener:
        service = build_service(settings)
        try:
            quiet_collector()
            listener.listen(BACKLOG)
            told(url_of(listener, tls=bool(settings.tls_certificate)))
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(service, listener))
        finally:
            service.audit.note("stopped", at=int(time.time() * 1000))
            service.close()


def build_service(settings: PrivateSettings) -> PrivateService:
    """Open everything but the processes.

    Raises:
        PenstockError: Something is missing or cannot be used; the message names the remedy.
    """
    from connectors.api.gate import Gate
    from connectors.api.load_control import LoadControl, LoadLimits
    from connectors.api.rate_limit import RateLimiter
    from connectors.api.tokens import read_tokens
    from connectors.private.bundle import BundleError, read_bundle
    from connectors.private.client.offer import OfferError
    from connectors.private.server.audit import AuditLog
    from connectors.private.server.key_registry import KeyRegistry
    from connectors.private.server.metrics import PrivateMetrics
    from connectors.private.server.pool import Pool, PoolConfig
    from connectors.private.server.replay import AHEAD_SECONDS, ReplayWindow
    from connectors.private.server.service import PrivateService

    tokens = read_tokens(os.environ.get(TOKENS, ""), settings.tokens_file)
    if not tokens:
        raise ConfigurationError(
            "the scorer's server has no tokens, so nobody could use it",
            f"Set {TOKENS} to TENANT:score:SECRET, or {PREFIX}TOKENS_FILE",
        )
    if not settings.folders:
        raise ConfigurationError(
            "no model is served", "Name folders that 'penstock private compile' has written"
        )
    try:
        models = [read_bundle(folder) for folder in settings.folders]
    except (BundleError, OfferError) as error:
        raise ConfigurationError(str(error), "Compile the model again") from error
    by_digest = {model.plan.digest: model for model in models}
    if len({model.offer.name for model in models}) < len(models):
        raise ConfigurationError("two models share a name", "Compile one with another --name")
    metrics = PrivateMetrics()
    load = LoadControl(LoadLimits(settings.queue_seconds))
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = _only_one(settings.home)
    audit, now = AuditLog(settings.home / "audit.jsonl"), time.time()
    if audit.ended > now + AHEAD_SECONDS:
        raise ConfigurationError(
            f"the log ends {audit.ended - now:.0f} s ahead of this machine's clock",
            "Set the clock: requests that were scored could come again",
        )
    audit.note("started", at=int(now * 1000), models=sorted(by_digest))
    pool = PoolConfig(
        settings.workers,
        settings.worker_mib,
        settings.worker_seconds,
        settings.max_waiting,
        settings.queue_seconds,
    )
    return PrivateService(
        settings=settings,
        metrics=metrics,
        gate=Gate(tokens, RateLimiter(settings.rate, settings.burst), load, metrics),
        keys=KeyRegistry(
            settings.home / "keys.jsonl",
            overlap_days=settings.overlap_days,
            max_keys=settings.max_keys,
        ),
        window=ReplayWindow(settings.window_seconds, now, audit.ended),
        audit=audit,
        pool=Pool(settings.folders, pool),
        models=by_digest,
        limiter=RateLimiter(settings.rows_rate, settings.rows_burst),
        signing=signing_key(settings.home / "scorer.key"),
        lock=lock,
    )


def _only_one(home: Path) -> BinaryIO:
    """Hold a home for this process alone, for as long as the file is open.

    Raises:
        ConfigurationError: When another server has it: two would break the log's chain.
    """
    import fcntl

    lock = (home / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigurationError(
            f"another server uses {home}", f"Stop it, or give this one a --home ({PREFIX}HOME)"
        ) from error
    return lock


def signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that answers are signed with; made at the first start, for its owner alone.

    Raises:
        ConfigurationError: When the file holds none, or others may read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        write_owner_only(path, made.private_bytes_raw().hex().encode() + b"\n")
        return made
    check_owner_only(path)
    try:
        return Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex(path.read_text(encoding="ascii").strip())
        )
    except ValueError as error:
        raise ConfigurationError(
            f"{path} holds no signing key ({error})",
            "Restore it from a copy; owners trust that key",
        ) from error


async def _run(service: PrivateService, listener: socket.socket) -> None:
    from connectors.api.connection import ConnectionLimits, Wire, guarded
    from connectors.private.server.app import create_app
    from connectors.private.server.pool import ScoringError

    settings = service.settings
    limits = ConnectionLimits(
        settings.max_connections, settings.read_seconds, settings.idle_seconds
    )
    wire = Wire(service.gate, service.metrics, limits, tls=bool(settings.tls_certificate))

    def ending() -> None:
        service.stopping = True

    run = HttpRun(
        "scorer's server",
        settings.idle_seconds,
        settings.stop_seconds,
        settings.tls_certificate,
        settings.tls_key,
    )
    try:
        await service.pool.start()
        await serve_http(create_app(service), guarded(wire), listener, run, ending)
    except ScoringError as error:
        raise ServiceError(str(error), "See its log above") from error
    finally:
        await service.pool.close()


if __name__ == "__main__":
    sys.exit(main())
