"""The network on disk: weights as safetensors, and a contract in JSON with every digest.

Nothing is loaded beside another model, background or division into players than it was trained for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.explain.amortised.config import AmortisedConfig, AmortisedError
from tasks.explain.amortised.explainer import AmortisedExplainer, Gate
from tasks.explain.amortised.network import ValueNet
from tasks.explain.engine import PlayerExplainer
from tasks.explain.scores import REPEATED, ScoreFunction, TorchScores

WEIGHTS, CONTRACT = "amortised.safetensors", "amortised.json"
FORMAT = 2
"""Version of the form of the contract."""


def save(fast: AmortisedExplainer, folder: Path) -> None:
    """Write the network and its contract into a folder, which is made."""
    from safetensors.torch import save as packed

    net, gate, engine = fast.net, fast.gate, fast.engine
    arrays = {name: value.contiguous() for name, value in net.state_dict().items()}
    arrays["gate.low"], arrays["gate.high"] = (
        torch.tensor(each, dtype=torch.float32) for each in (gate.low, gate.high)
    )
    arrays["background_scores"] = torch.tensor(engine.background_scores)
    weights = packed(arrays)
    contract = {
        "format": FORMAT,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **_identity(engine),
        "gate": {
            "log_error": gate.log_error,
            "rel_l2": gate.rel_l2,
            "fallback": gate.fallback,
            "held_out": gate.held_out,
            "error_scale": gate.error_scale,
        },
        "config": asdict(fast.config),
    }
    contract["settings_sha256"] = _settings_digest(contract)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    text = json.dumps(contract, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / CONTRACT).write_text(text + "\n", encoding="utf-8")


def load(folder: Path, engine: PlayerExplainer) -> AmortisedExplainer:
    """Read a network for the engine that it was trained by.

    Raises:
        AmortisedError: When a file is missing or changed, or the network belongs to another model,
            background or division into players.
    """
    from safetensors.torch import load as unpacked

    try:
        contract = json.loads((folder / CONTRACT).read_text(encoding="utf-8"))
        weights = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise AmortisedError(
            f"no amortised explainer in {folder}: {error}; save it anew"
        ) from error
    if not isinstance(contract, dict) or contract.get("format") != FORMAT:
        raise AmortisedError(f"{CONTRACT} is not of format {FORMAT}; build it anew")
    if contract.get("weights_sha256") != hashlib.sha256(weights).hexdigest():
        raise AmortisedError(f"{WEIGHTS} was changed after it was saved; restore it or build anew")
    if contract.get("settings_sha256") != _settings_digest(contract):
        raise AmortisedError(
            f"gate or config of {CONTRACT} were changed after they were saved: restore the file, "
            "or build anew with the settings wanted"
        )
    for key, own in _identity(engine).items():
        if contract.get(key) != own:
            raise AmortisedError(
                f"the network was trained for another {key.removesuffix('_sha256')} than the "
                "engine's: build it anew for this one"
            )
    try:
        config = AmortisedConfig(
            **contract["config"] | {"hidden": tuple(contract["config"]["hidden"])}
        )
        arrays = unpacked(weights)
        low, high = (arrays.pop(name).numpy() for name in ("gate.low", "gate.high"))
        _refuse_other_scores(engine, arrays.pop("background_scores").numpy())
        net = ValueNet(len(low), len(engine.players), config.hidden)
        net.load_state_dict(arrays)
        gate = Gate(low, high, **contract["gate"])
    except AmortisedError:  # a ValueError, too, and says more
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise AmortisedError(f"{CONTRACT} is damaged: {error}; save it anew") from error
    return AmortisedExplainer(engine, net, gate, config)


def _settings_digest(contract: dict[str, Any]) -> str:
    """Return the digest of gate and config: a promise set by hand was never kept."""
    settings = [contract.get("gate"), contract.get("config")]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _identity(engine: PlayerExplainer) -> dict[str, Any]:
    """Return what a network and its engine must share."""
    players = engine.players
    return {
        "background_sha256": engine.background.sha256,
        "model_sha256": _digest(engine.function),
        "players": [list(players.features), list(players.names), list(players.owner)],
    }


def _digest(function: ScoreFunction) -> str:
    """Return the digest of a module's form and weights; other functions are known by scores."""
    if not isinstance(function, TorchScores):
        return ""
    digest = hashlib.sha256(f"{function.module!r}|{function.output}".encode())
    for name, value in function.module.state_dict().items():
        digest.update(f"|{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _refuse_other_scores(engine: PlayerExplainer, before: np.ndarray[Any, Any]) -> None:
    own = engine.background_scores
    if own.shape != before.shape or (np.abs(own - before) > REPEATED * (1 + np.abs(own))).any():
        raise AmortisedError(
            "the model scores the background otherwise than when the network was trained: build "
            "the network anew for this model"
        )
