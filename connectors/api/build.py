"""From settings to a running service: models, state, gates and routes put together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.api.approved_rules import ApprovedRules
from connectors.api.dead_letters import DeadLetters
from connectors.api.engine import Engine
from connectors.api.explaining import Explaining, ExplainLimits
from connectors.api.gate import Gate
from connectors.api.labels import Labels
from connectors.api.live import LiveDecisions
from connectors.api.load_control import LoadControl, LoadLimits
from connectors.api.metrics import Metrics
from connectors.api.model_source import REGISTRY, ModelSource
from connectors.api.models import Models
from connectors.api.modes import MIB, Foundation, lay_foundation, now_ms, open_journal
from connectors.api.rate_limit import RateLimiter
from connectors.api.rules import Rules, RulesError, default_rules
from connectors.api.scoring import Scoring
from connectors.api.served_model import ServedModel
from connectors.api.service import RULES_FILE, Service
from connectors.api.tokens import TokenBook, read_tokens
from connectors.registry import CHALLENGER, CHAMPION
from infra.environment import service_environment
from infra.errors import ConfigurationError
from infra.settings import get_settings

if TYPE_CHECKING:
    from connectors.api.settings import ApiSettings
    from tasks.explain.rules.engine import Power

CONFLICTS = "rule-conflicts"
"""Journal of the disagreements of approved rules with the model."""


def build_service(settings: ApiSettings) -> Service:
    """Open everything.

    Raises:
        PenstockError: Something is missing or cannot be used; the message names the remedy.
    """
    if not settings.model:
        raise ConfigurationError(
            "the API was not told which model to serve",
            "Set PENSTOCK_API_MODEL to a bundle folder or to registry:DATASET",
        )
    tokens = _tokens(settings)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    metrics, live = Metrics(), LiveDecisions()
    load = LoadControl(LoadLimits(settings.budget_ms / 1000))
    gate = Gate(tokens, RateLimiter(settings.rate, settings.burst), load, metrics)
    champion = _source(settings, settings.model, CHAMPION)
    model = champion.load()
    approved = _approved(settings, model)
    challenger = _source(settings, settings.challenger, CHALLENGER) if settings.challenger else None
    models = Models(champion, challenger, settings.home, load, metrics)
    rules, own = _rules(settings.home / RULES_FILE, model)
    foundation = lay_foundation(settings, model.bundle.config, metrics)
    if approved is not None:
        foundation.journals[CONFLICTS] = open_journal(settings, CONFLICTS)
    engine = Engine(
        foundation.state,
        model,
        rules,
        hand_on=foundation.transactions,
        metrics=metrics,
        live=live,
        shadow=models.shadow,
        reasons_from=settings.reasons_from,
        reasons_seconds=settings.reasons_ms / 1000,
        approved=approved,
        conflicts=foundation.journals.get(CONFLICTS),
    )
    models.start(engine, own_rules=own)
    engine.warn_of_vetoes()
    dead = DeadLetters(
        foundation.journals["dead-letters"],
        daily_bytes=settings.dead_letter_mib * MIB,
        now_ms=now_ms,
    )
    limits = ExplainLimits(
        settings.explain_ms / 1000, settings.explain_rate, settings.max_body_bytes
    )
    explaining = Explaining(engine, gate, metrics, limits, now_ms)
    scoring, labels = _takers(settings, engine, gate, dead, metrics, foundation)
    return Service(
        settings,
        tokens,
        metrics,
        live,
        load,
        gate,
        foundation,
        models,
        engine,
        scoring,
        labels,
        explaining,
        dead,
        now_ms(),
    )


def _tokens(settings: ApiSettings) -> TokenBook:
    tokens = read_tokens(settings.tokens.get_secret_value(), settings.tokens_file)
    if not tokens:
        raise ConfigurationError(
            "the API has no tokens, so nobody could use it",
            "Set PENSTOCK_API_TOKENS to NAME:score+label+read:SECRET, or PENSTOCK_API_TOKENS_FILE",
        )
    return tokens


def _approved(settings: ApiSettings, model: ServedModel) -> ApprovedRules | None:
    """Return the rules that run beside the model."""
    if settings.approved_rules is None:
        return None
    powers: list[Power] = [p for p in ("flag", "veto") if p in settings.rule_powers]
    approved = ApprovedRules.load(settings.approved_rules, powers)
    approved.require(model.columns(model.heads[0]))
    return approved


def _takers(
    settings: ApiSettings,
    engine: Engine,
    gate: Gate,
    dead: DeadLetters,
    metrics: Metrics,
    foundation: Foundation,
) -> tuple[Scoring, Labels]:
    """Return what takes transactions and what takes labels."""
    scoring = Scoring(
        engine,
        gate,
        dead,
        metrics,
        max_body=settings.max_body_bytes,
        max_batch=settings.max_batch,
        explain_batches=settings.bulk_reasons,
        now_ms=now_ms,
    )
    labels = Labels(
        foundation.state,
        engine.config,
        dead,
        metrics,
        hand_on=foundation.labels,
        max_batch=settings.max_batch,
        now_ms=now_ms,
    )
    return scoring, labels


def _source(settings: ApiSettings, address: str, alias: str) -> ModelSource:
    uri = settings.tracking_uri
    if address.startswith(REGISTRY) and not uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        uri = service_environment(get_settings())["MLFLOW_TRACKING_URI"]  # the one of `penstock up`
    source = ModelSource(address, alias, settings.home / "models", uri)
    if alias == CHALLENGER:  # it scores in the shadow and tells no reasons
        return source
    return source._replace(catalogue=settings.catalogue, language=settings.language)


def _rules(path: Path, model: ServedModel) -> tuple[Rules, bool]:
    """Return the rules that were set, or the bundle's; and whether they were set."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default_rules(model.bundle.thresholds, model.bundle.digest), False
    except (OSError, ValueError) as error:
        raise RulesError(f"{path} cannot be read ({error})", "Correct or remove it") from error
    return Rules.from_dict(data, tuple(model.bundle.config.kinds)), True
