"""Editions of rules as files, ``rules.json``, and the records of their trials beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.explain.rule_files import UNSEEN, in_time, teacher_of
from connectors.files import atomic_path
from tasks.explain.rules.approval import Limits, Trial, require_approval, try_edition
from tasks.explain.rules.edition import Rules, edition_from_json
from tasks.explain.rules.model import RuleSetError
from tasks.explain.subject import Subject

MAX_BYTES = 4_000_000
"""Largest file of an edition or a trial."""


def trial_path(edition: Path) -> Path:
    """Return where the record of an edition's trial lies.

    >>> trial_path(Path("live/rules.json")).as_posix()
    'live/rules.trial.json'
    """
    return edition.with_suffix(".trial.json")


def read_edition(path: Path) -> Rules:
    """Read an edition.

    Raises:
        RuleSetError: When there is none, or it is none.
    """
    text = _text(path)
    try:
        return edition_from_json(text)
    except RuleSetError as error:
        raise type(error)(f"{path}: {error}") from error


def read_approved(path: Path) -> tuple[Rules, Trial]:
    """Read an edition that has passed its trial as it is now, and the trial.

    Raises:
        RuleSetError: As ``read_edition``; without a record, or when it does not approve of it
            (``NotApprovedError``).
    """
    rules, record = read_edition(path), trial_path(path)
    if not record.exists():
        raise RuleSetError(
            f"{path} was never tried; run it over history first: penstock explain trial {path} DATA"
        )
    return rules, require_approval(rules, _text(record))


def try_over(
    path: Path,
    subject: Subject,
    places: NDArray[np.intp],
    *,
    tried_by: str,
    before: Path | None = None,
    limits: Limits | None = None,
    newest: float = UNSEEN,
) -> Trial:
    """Run an edition over a subject's rows and write the record beside it.

    Args:
        path: The edition.
        subject: Rows with the model that decided them.
        places: Which of them.
        tried_by: Who answers for it.
        before: The edition in force; None: this is the first.
        limits: What it must keep to.
        newest: Share of the rows it is tried on, the newest: mining learns from the older ones.

    Raises:
        RuleSetError: On a share that is none, files that are no editions, or features that are not
            the model's.
        ExplanationError: Without thresholds or scores.
    """
    if not 0 < newest <= 1:
        raise RuleSetError(f"newest {newest} must be a share above 0, at most 1 for all rows")
    new = read_edition(path)
    places = in_time(subject, places)
    places = places[-max(1, round(newest * len(places))) :]
    old = None if before is None else read_edition(before)
    columns = _columns(new, subject)
    teacher = teacher_of(subject, places)
    rows = subject.rows[places][:, columns]
    trial = try_edition(
        new, rows, teacher.decisions, tried_by, old, limits,
        model_digest=subject.model.digest, thresholds=subject.thresholds,
    )  # fmt: skip
    with atomic_path(trial_path(path)) as draft:
        draft.write_text(trial.to_json(), encoding="utf-8")
    return trial


def _columns(rules: Rules, subject: Subject) -> list[int]:
    names = list(subject.background.names)
    absent = [name for name in rules.features if name not in names]
    if absent:
        raise RuleSetError(
            f"the rules know a feature {absent[0]!r} and the model does not; try them over rows of "
            "the model that they stand for"
        )
    return [names.index(name) for name in rules.features]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RuleSetError(f"{path} is larger than {MAX_BYTES:,} bytes; shorten it")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RuleSetError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RuleSetError(f"{path} is no UTF-8 text: {error.reason}") from None
