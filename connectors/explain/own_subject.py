"""A user's model and tables as a subject of explanation reports."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from connectors.explain.model_files import first_line, open_model
from connectors.explain.own_model import OwnModel
from connectors.explain.own_tables import read_players, read_tables
from connectors.files import digest
from tasks.explain.background import Background
from tasks.explain.catalogue.unmatched import warn_unmatched
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import ExplanationError, ScoreError
from tasks.explain.player_reasons import PlayerWords, player_groups, player_reasons
from tasks.explain.record import ModelName, RowFacts, of_players
from tasks.explain.scores import checked_scores
from tasks.explain.subject import NO_WORDS, Explained, Subject, Words


def own_subject(own: OwnModel, *, code: str = "", words: Words = NO_WORDS) -> Subject:
    """Open a user's model and tables, and score the rows.

    Args:
        own: What the user brings.
        code: Commit of the code.
        words: Catalogue and language of the reasons; no catalogue: by name and value, in English.

    Raises:
        ExplanationError: On anything that does not fit; the message says what and how to mend it.
        InputFileError: On a table that cannot be read.
    """
    catalogue, language = words
    if catalogue is None and language != NO_WORDS[1]:
        raise ExplanationError(
            f"there are no words in {language!r} for a model of your own; give --catalogue, too"
        )
    tables = read_tables(own)
    score = open_model(own.model, own.output)
    players = read_players(own.groups, tables.names)
    told = None if catalogue is None else PlayerWords(players, catalogue, language)
    if told is not None:
        warn_unmatched(told.bound.used, player_groups(players))
    try:
        decided = checked_scores(score, tables.rows)
    except ExplanationError:
        raise
    except Exception as error:
        # torch and ONNX Runtime raise classes of their own for rows of another width.
        raise ScoreError(
            f"{own.model.name} cannot score rows of the {len(tables.names)} background columns: "
            f"{first_line(error)}; give a background of exactly the model's features"
        ) from error
    options = ExplainOptions(evaluations=own.evaluations, seconds=own.seconds, seed=own.seed)
    model = ModelName(own.model.name, "", digest(own.model))
    facts = RowFacts(tables.facts.keys, decided, tables.facts.times, tables.facts.segments)

    def explain(places: NDArray[np.intp], background: Background | None = None) -> Explained:
        explainer = PlayerExplainer(score, background or tables.background, players, options)
        found = explainer.explain(tables.rows[places])
        part = replace(facts.take(places), decided=None)  # the scores that were explained
        record = of_players(
            found, players, tables.rows[places], part, model=model,
            options={k: v for k, v in asdict(options).items() if k != "seed"},
            thresholds=own.thresholds, code=code,
        )  # fmt: skip
        return Explained(record, player_reasons(record, told))

    return Subject(
        title=own.model.stem,
        model=model,
        rows=tables.rows,
        facts=facts,
        background=tables.background,
        score=score,
        explain=explain,
        thresholds=own.thresholds,
        outcomes=tables.outcomes,
        entity=tables.entity,
        entity_name=own.entity,
    )
