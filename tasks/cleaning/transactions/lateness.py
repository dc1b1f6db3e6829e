"""Late and early: event time against arrival, and labels against both."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.profile.times import local_times, seconds_of
from tasks.cleaning.transactions.model import TransactionRules

Bools = NDArray[np.bool_]


def late(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows behind the watermark [rows].

    The watermark is the newest time seen so far less ``late_seconds``, in order of arrival, or of
    rows where arrival is not known: what Flink's bounded out-of-orderness drops. A time farther
    ahead of its arrival than ``ahead_seconds``, or without one, does not move it.
    """
    times = seconds_of(frame[rules.time], rules.zone)
    order, seen = np.arange(len(times)), times
    if rules.arrival:
        arrived = seconds_of(frame[rules.arrival], rules.zone)
        order = np.argsort(arrived, kind="stable")
        seen = np.where(times <= arrived + rules.ahead_seconds, times, np.nan)
    newest = np.fmax.accumulate(seen[order]) if len(times) else times
    found = np.zeros(len(times), bool)
    found[order] = times[order] < newest - rules.late_seconds  # false for what is no time
    return found


def before_it_happened(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows that arrived before they happened, but for ``ahead_seconds`` [rows]."""
    happened = seconds_of(frame[rules.time], rules.zone)
    return np.asarray(happened > seconds_of(frame[rules.arrival], rules.zone) + rules.ahead_seconds)


def before_opening(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows older than their account; a day without a time counts from its start."""
    return np.asarray(
        seconds_of(frame[rules.time], rules.zone) < seconds_of(frame[rules.opened], rules.zone)
    )


def never_shown(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows whose local time no clock of the zone showed [rows]."""
    local = local_times(frame[rules.time])
    missing = np.isnan(seconds_of(frame[rules.time], rules.zone))
    return np.asarray(local.is_not_null().to_numpy() & missing)


def early_labels(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows whose label was known before the event, or before a label can be [rows]."""
    known = seconds_of(frame[rules.label_time], rules.zone)
    return np.asarray(known < seconds_of(frame[rules.time], rules.zone) + rules.label_delay_seconds)
