"""The services beside a stream job: the writer of the online store, and the API that reads it."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.flink.spec import StreamSpec
from connectors.flink.start import REGISTRY
from connectors.online_store.store import STORE_VARIABLE
from connectors.uris import without_login
from infra.errors import ConfigurationError
from infra.services.python_services import FROM_ENVIRONMENT, configure_service
from infra.services.registry import ServiceStatus, end_service, start_service
from infra.settings import Settings

SERVICES = ("store-writer", "api")


def serve(
    settings: Settings, spec: StreamSpec, model: str, *, store: str = "lmdb"
) -> list[ServiceStatus]:
    """Start, or start anew, what serves a stream.

    Without tokens in the environment one is made for this machine: its secret lies in
    ``home/api/token``, readable by its owner alone, its hash in the file the API reads.

    Args:
        settings: The settings.
        spec: The stream; its job must have been submitted.
        model: What the API serves: a bundle folder, or ``registry:DATASET``.
        store: The online store: ``lmdb`` (below home), ``redis`` (the configured one, or ours), or
            an address. PENSTOCK_STORE_URL wins over it.

    Raises:
        ServiceError: One of them does not come up.
        ConfigurationError: The address holds a password.
    """
    # An address in the environment reaches both services from there, and lies in no file.
    place = FROM_ENVIRONMENT if os.environ.get(STORE_VARIABLE) else store_place(settings, store)
    writer = {"PENSTOCK_STREAM": spec.name, "PENSTOCK_KAFKA_SERVERS": spec.kafka}
    configure_service(settings, "store-writer", writer | {STORE_VARIABLE: place})
    variables = {
        "PENSTOCK_API_HOME": str(settings.home / "api"),
        "PENSTOCK_API_MODE": "stream",
        "PENSTOCK_API_MODEL": model if model.startswith(REGISTRY) else spec.model_folder,
        "PENSTOCK_API_KAFKA": spec.kafka,
        "PENSTOCK_API_KAFKA_PREFIX": spec.prefix,
        "PENSTOCK_API_STORE": place,
    }
    if not (os.environ.get("PENSTOCK_API_TOKENS") or os.environ.get("PENSTOCK_API_TOKENS_FILE")):
        variables["PENSTOCK_API_TOKENS_FILE"] = str(local_token(settings.home / "api"))
    configure_service(settings, "api", variables)
    started = []
    for name in SERVICES:
        end_service(settings, name)
        started.append(start_service(settings, name))
    return started


def require_own_store(settings: Settings, spec: StreamSpec, store: str) -> None:
    """Refuse a store that was seeded with a history which the stream does not know.

    Raises:
        ConfigurationError: A stream without state would overwrite it, entity by entity; or the
            address holds a password.
        ServiceError: No Redis runs.
    """
    from connectors.online_store.errors import StoreNotFoundError
    from connectors.online_store.seed import COVERED_UNTIL
    from connectors.online_store.store import open_store

    place = os.environ.get(STORE_VARIABLE) or store_place(settings, store)
    if spec.restore:
        return
    try:
        with open_store(place, read_only=True) as opened:
            seeded = opened.get_meta(COVERED_UNTIL) is not None
    except StoreNotFoundError:
        return
    if seeded:
        raise ConfigurationError(
            f"{without_login(place)} was seeded with a history that stream {spec.name} does not "
            "know: it would overwrite it, entity by entity",
            "Let the stream read the history (penstock stream send), with another store or this "
            "one emptied",
        )


def store_place(settings: Settings, store: str) -> str:
    """Return the address of the online store of a stream, to be kept in a plain file.

    Raises:
        ServiceError: No Redis runs.
        ConfigurationError: The address holds a password.
    """
    from infra.services.redis_server import redis_url

    if store == "lmdb":
        return f"lmdb://{settings.home / 'online-store'}"
    address = redis_url(settings) if store == "redis" else store
    if without_login(address) != address:
        raise ConfigurationError(
            f"the address of the online store, {without_login(address)}, holds a password",
            f"Set it in the variable {STORE_VARIABLE}: it must not lie in a file",
        )
    return address


def local_token(folder: Path) -> Path:
    """Return the file of token hashes of this machine, made with one token where it is missing."""
    from connectors.api.tokens import new_token

    hashes, secret = folder / "tokens", folder / "token"
    if not hashes.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        text, line = new_token("local", ("score", "label", "read", "admin"))
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
        hashes.write_text(line + "\n", encoding="utf-8")
    return hashes
