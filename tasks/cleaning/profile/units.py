"""Units as people write them after a number."""

from __future__ import annotations

from collections.abc import Mapping

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "%": ("%", "percent", "pct"),
    "oz": ("oz", "ounce", "ounces"),
    "lb": ("lb", "lbs", "pound", "pounds"),
    "g": ("g", "gram", "grams", "gramme", "grammes"),
    "kg": ("kg", "kilo", "kilos", "kilogram", "kilograms"),
    "mg": ("mg", "milligram", "milligrams"),
    "t": ("t", "ton", "tons", "tonne", "tonnes"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "km": ("km", "kilometer", "kilometers", "kilometre", "kilometres"),
    "in": ("in", "inch", "inches", '"'),
    "ft": ("ft", "foot", "feet", "'"),
    "ml": ("ml", "milliliter", "milliliters", "millilitre", "millilitres"),
    "l": ("l", "liter", "liters", "litre", "litres"),
    "gal": ("gal", "gallon", "gallons"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "min": ("min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "c": ("c", "°c", "degc", "celsius"),
    "f": ("f", "°f", "degf", "fahrenheit"),
    "v": ("v", "volt", "volts"),
    "a": ("a", "amp", "amps", "ampere", "amperes"),
    "kw": ("kw", "kilowatt", "kilowatts"),
    "w": ("w", "watt", "watts"),
    "bar": ("bar", "bars"),
    "usd": ("$", "usd", "dollar", "dollars"),
    "eur": ("€", "eur", "euro", "euros"),
    "gbp": ("£", "gbp"),
}
SYMBOL = (
    r"^(?:[fpnuµmcdhkMGTP]|da)?(?:W|Wh|V|VA|A|Ah|Hz|Pa|J|N|Nm|F|H|S|C|T|Wb|lm|lx|Bq|Gy|Sv|eV|"
    r"g|m|l|L|s|b|B|bar|bit|mol|cd|K|Ω)$"
)
"""A unit's symbol with its prefix, in the one case in which it means that: mW is not MW."""
_UNIT_OF = {spelling: unit for unit, spellings in SPELLINGS.items() for spelling in spellings}


def unit_of(text: str) -> str:
    """Return the unit that a text after a number names, "" where it names none."""
    return _UNIT_OF.get(text.strip().strip(".").lower(), "")
