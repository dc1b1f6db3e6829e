"""Numbers, durations, windows and dates as each language says them."""

from __future__ import annotations

import math
import re
from datetime import date
from functools import cache
from typing import Literal, get_args

from tasks.explain import groups

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

_UNITS = (
    (86_400, "day", "天"),
    (3_600, "hour", "小时"),
    (60, "minute", "分钟"),
    (1, "second", "秒"),
)
_WINDOW_UNITS = {"s": "秒", "m": "分钟", "min": "分钟", "h": "小时", "d": "天", "w": "周"}
_NOTHING = 1e-12
"""Magnitude up to which a number is rounding, and said to be zero."""

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December")  # fmt: skip


def fixed(value: float, places: int) -> str:
    """Say a number with decimal places; one that they would call zero with two digits.

    >>> fixed(1234.5, 2), fixed(0.0012, 1), fixed(-0.0, 1)
    ('1,234.50', '0.0012', '0.0')
    """
    if _NOTHING < abs(value) <= 0.5 * 10**-places:
        return _small(value)
    if abs(value) <= _NOTHING:
        value = 0.0  # of -0.0 no sign is left
    return f"{value:,.{places}f}"


def _small(value: float) -> str:
    """Say a number below one with two digits, and not as a power of ten."""
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}".rstrip("0").rstrip(".")


def decimal(value: float) -> str:
    """Say a number with one decimal place where it has any.

    >>> decimal(1.0), decimal(2.5)
    ('1', '2.5')
    """
    return fixed(value, 1).removesuffix(".0")


def percent(share: float) -> str:
    """Say a share in percent; none and all are said of nothing else.

    >>> percent(0.38), percent(0.004), percent(0.9962), percent(1.0)
    ('38', '0.4', '99.6', '100')
    """
    value = share * 100
    if math.isinf(value) and math.isfinite(share):
        return f"{100 * int(share):,}"
    if _NOTHING < abs(value) < 1:
        return _small(value)
    rest = abs(100 - abs(value))
    return fixed(value, -math.floor(math.log10(rest)) if 0 < rest < 1 else 0)


def count(value: float, noun: str) -> str:
    """Say how many, in English.

    >>> count(1, "fraud"), count(2.5, "day")
    ('1 fraud', '2.5 days')
    """
    text = decimal(value)
    return f"{text} {noun}{'' if text == '1' else 's'}"


def duration(seconds: float, language: Language = "en") -> str:
    """Say a duration in its largest fitting unit.

    >>> duration(5400), duration(86400), duration(1), duration(0.3), duration(5400, "zh")
    ('1.5 hours', '1 day', '1 second', '0.3 seconds', '1.5小时')
    """
    size, english, chinese = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    value = seconds if abs(seconds) < 1 else round(seconds / size, 1 if size > 1 else 0)
    return count(value, english) if language == "en" else decimal(value) + chinese


def number(value: float) -> str:
    """Say a number with four digits, or all those before the point.

    >>> number(1234.5678), number(12.0), number(0.0012), number(float("nan"))
    ('1,235', '12', '0.0012', 'missing')
    """
    if math.isnan(value):
        return "missing"
    text = f"{value + 0.0:,.4g}"
    return f"{value:,.0f}" if "e" in text and 1 <= abs(value) < 1e15 else text


@cache
def window_words(window: str, language: Language = "en") -> str:
    """Say a window name in words.

    >>> window_words("30d"), window_words("1h", "zh"), window_words("")
    ('30 days', '1小时', '')
    """
    if language == "en":
        return groups.window_words(window)
    match = re.fullmatch(r"(\d+)(s|min|m|h|d|w)", window)
    return f"{int(match[1])}{_WINDOW_UNITS[match[2]]}" if match else window


@cache
def window_adjective(window: str, language: Language = "en") -> str:
    """Say a window name as an adjective.

    >>> window_adjective("30d"), window_adjective("30d", "zh")
    ('30-day', '30天')
    """
    return groups.window_adjective(window) if language == "en" else window_words(window, language)


def day(when: date, language: Language) -> str:
    """Say a date.

    >>> day(date(2026, 11, 9), "en"), day(date(2026, 11, 9), "zh")
    ('November 9, 2026', '2026年11月9日')
    """
    if language == "en":
        return f"{_MONTHS[when.month - 1]} {when.day}, {when.year}"
    return f"{when.year}年{when.month}月{when.day}日"
