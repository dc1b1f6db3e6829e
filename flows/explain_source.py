"""What the explanation flows explain: the serving fraud model on a file, or a user's own model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors.explain import steps as explain_steps
from connectors.files import digest
from flows.prepared import prepare
from infra.settings import get_settings
from tasks.workspace import place_of, source_digest


def open_source(
    data: str,
    config: str,
    contract: str,
    own: dict[str, Any] | None,
    *,
    catalogue: str = "",
    language: str = "en",
) -> dict[str, Any]:
    """Run the steps that come before any explanation; inside a flow.

    Args:
        data: File of transactions; of no use with ``own``.
        config: Dataset config, whose name finds the model.
        contract: TOML file of own lines that rows must meet; empty: none.
        own: ``OwnModel.to_record()``; None: the fraud champion.
        catalogue: TOML file of codes and words of the reasons; empty: the model's own.
        language: Language of the reasons, en or zh.

    Returns:
        A source as ``connectors.explain.subjects`` opens it.
    """
    words = {
        "catalogue": catalogue,
        "digest": digest(Path(catalogue)) if catalogue else "",
        "language": language,
    }
    if own is not None:
        described: dict[str, Any] = explain_steps.describe_own(own)
        return described | {"words": words}
    job, model, _, checked, table = prepare(data, config, contract)
    return {
        "kind": "fraud",
        "data": checked["folder"],
        "features": table["folder"],
        "bundle": model["bundle"],
        "digest": model["digest"],
        "model": model["model"],
        "version": model["version"],
        "dataset": job["config"]["name"],
        "commit": job["git_commit"],
        "words": words,
    }


def place_for(step: str, source: dict[str, Any], **inputs: Any) -> str:
    """Return where a step keeps its files: named by source, code and what it is asked."""
    known = {**source, "code": source_digest(), **inputs}
    return str(place_of(get_settings().home / "work", step, known).folder)
