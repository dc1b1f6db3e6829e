"""Numbers, durations, windows and dates as each language says them."""

from __future__ import annotations

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
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December")  # fmt: skip


def decimal(value: float) -> str:
    """Say a number with one decimal place where it has any.

    >>> decimal(1.0), decimal(2.5)
    ('1', '2.5')
    """
    return f"{value:,.1f}".removesuffix(".0")


def count(value: float, noun: str) -> str:
    """Say how many, in English.

    >>> count(1, "fraud"), count(2.5, "day")
    ('1 fraud', '2.5 days')
    """
    text = decimal(value)
    return f"{text} {noun}{'' if text == '1' else 's'}"


def duration(seconds: float, language: Language = "en") -> str:
    """Say a duration in its largest fitting unit.

    >>> duration(5400), duration(86400), duration(1), duration(5400, "zh")
    ('1.5 hours', '1 day', '1 second', '1.5小时')
    """
    size, english, chinese = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    value = round(seconds / size, 1 if size > 1 else 0)
    return count(value, english) if language == "en" else decimal(value) + chinese


def number(value: float) -> str:
    """Say a number with as many digits as help.

    >>> number(3.0), number(0.123), number(1234.5)
    ('3', '0.12', '1,234')
    """
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}"


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
