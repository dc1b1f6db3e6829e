"""Impossible places: off the map, or farther from the last one than anybody travels."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.profile.times import seconds_of
from tasks.cleaning.transactions.model import TransactionRules

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

EARTH_KM = 6_371.0088  # mean radius (IUGG)
HOUR = 3_600.0


def distance_km(lat: Floats, lon: Floats, other_lat: Floats, other_lon: Floats) -> Floats:
    """Return great-circle distances of places in degrees, by the haversine formula [n]."""
    a, b = np.radians(lat), np.radians(other_lat)
    half = np.sin((b - a) / 2) ** 2
    half = half + np.cos(a) * np.cos(b) * np.sin(np.radians(other_lon - lon) / 2) ** 2
    return np.asarray(2.0 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))


def off_the_map(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows beyond the poles or the date line, or at 0, 0: a place left out [rows]."""
    lat, lon = _degrees(frame, rules)
    beyond = (np.abs(lat) > 90.0) | (np.abs(lon) > 180.0)
    return np.asarray(beyond | ((lat == 0.0) & (lon == 0.0)))


def too_far(frame: pl.DataFrame, rules: TransactionRules) -> Bools:
    """Return the rows that their account cannot have reached in time [rows].

    Of two places too far apart the later one is found. Where leaving it out lets the account go on
    from before to after, it alone is; where instead leaving out the earlier one does, that is.
    """
    lat, lon = _degrees(frame, rules)
    times = seconds_of(frame[rules.time], rules.zone)
    account = frame[rules.account]
    known = np.isfinite(lat) & np.isfinite(lon) & np.isfinite(times)
    known &= account.is_not_null().to_numpy() & ~off_the_map(frame, rules)
    rows = np.flatnonzero(known)
    codes = account.gather(rows).rank("dense").to_numpy()
    rows = rows[np.lexsort((times[rows], codes))]
    codes = account.gather(rows).rank("dense").to_numpy()
    found = np.zeros(frame.height, bool)
    if len(rows) < 2:
        return found
    place = (lat[rows], lon[rows], times[rows], codes)
    first = _breaks(place, 1, rules)
    # skip[i]: from two before i to i is too far as well, or is another account.
    skip = _breaks(place, 2, rules)
    alike = np.zeros(len(rows), bool)
    alike[2:] = codes[2:] == codes[:-2]
    broken = first.copy()
    after = np.append(first[1:], False)
    reach = np.append(alike[1:] & ~skip[1:], False)  # from the one before i to the one after it
    alone = first & after & reach
    broken[1:] &= ~alone[:-1]  # the way back from a wrong place is not wrong itself
    # A wrong first place breaks only the way to the second: then the second and third agree.
    begins = np.append(True, codes[1:] != codes[:-1])
    blame = np.zeros(len(rows), bool)
    third = np.append(alike[2:] & ~first[2:] & skip[2:], [False, False])
    blame[:-1] = begins[:-1] & first[1:] & third[:-1]
    broken[1:] &= ~blame[:-1]
    found[rows[broken | blame]] = True
    return found


def _breaks(
    place: tuple[Floats, Floats, Floats, Floats], back: int, rules: TransactionRules
) -> Bools:
    """Return the places too far from the one ``back`` places before, of the same account."""
    lat, lon, times, codes = place
    broken = np.zeros(len(lat), bool)
    far = distance_km(lat[:-back], lon[:-back], lat[back:], lon[back:])
    hours = np.maximum((times[back:] - times[:-back]) / HOUR, 1e-9)
    too_fast = (far > rules.near_km) & (far / hours > rules.max_speed_kmh)
    broken[back:] = too_fast & (codes[back:] == codes[:-back])
    return broken


def _degrees(frame: pl.DataFrame, rules: TransactionRules) -> tuple[Floats, Floats]:
    lat, lon = (
        frame[name].str.strip_chars().cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        for name in (rules.latitude, rules.longitude)
    )
    return lat, lon
