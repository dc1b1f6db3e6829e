r"""Regular expressions that mean the same to Rust, Java and Python; all others are refused.

The subset: characters, ``.``, classes ``[a-z_]`` and ``[^...]``, groups ``(...)`` and ``(?:...)``,
alternatives ``|``, repeats ``* + ? {2} {2,} {2,5}`` (also lazy), escaped punctuation, ``\n \r \t \f
\v \xHH \uHHHH``, and ``\d \w \s \D \W \S``. A pattern matches the whole text, so ``^`` may begin
and ``$`` end it or one of its alternatives.

The engines differ over the meaning of ``.`` (Java stops at five kinds of line ends), of ``\d`` (all
digits of Unicode in Rust and Python), of ``\v`` and of ``$`` (before a final newline in Java and
Python), so a pattern is written anew: ``.`` is anything but a newline, the classes are those of
ASCII, and the whole stands between ``\A`` and ``\z``.
"""

from __future__ import annotations

from dataclasses import dataclass

ASCII_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": " \t\n\r\f\v"}
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
SPECIAL = frozenset("\\.+*?()|[]{}^$#&-~")
"""What all three engines let stand behind a backslash as itself, and what one of them wants so."""
PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ")
MAX_REPEAT = 1_000
MAX_SIZE = 20_000
"""Characters and classes of a pattern, repeats written out: Rust's compiler has a bound as well."""
CLASS_SIZE = 5
MAX_DEEP_CHARACTERS = 1_000
"""Longest text that a pattern with a group repeated without end can match: Java's engine calls
itself for every round of the group, and a text of some thousand characters ends its thread."""


class PatternError(ValueError):
    """A regular expression that some engine does not know, or takes for another one."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern as all engines read it.

    Attributes:
        text: The pattern written anew, anchored at both ends; for Rust and Java.
        deep: Whether it repeats a group without end, so that long texts do not match it.
    """

    text: str
    deep: bool


def portable(pattern: str) -> Pattern:
    """Read a pattern and write it anew.

    Raises:
        PatternError: With the place and what to write instead.
    """
    reader = _Reader(pattern)
    part = reader.alternatives(top=True)
    if reader.at < len(pattern):
        raise reader.error("')' closes nothing; write \\)")
    return Pattern(f"\\A(?:{part.text})\\z", part.deep)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of a pattern: its text, its size, and what repeats of it would mean."""

    text: str
    size: int = 0
    deep: bool = False
    single: bool = False  # one character or class
    empty: bool = True  # may match nothing
    endless: bool = False  # is nothing but a repeat without end


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def error(self, why: str) -> PatternError:
        return PatternError(f"at character {self.at + 1}: {why}")

    def peek(self, length: int = 1) -> str:
        return self.pattern[self.at : self.at + length]

    def take(self) -> str:
        character = self.peek()
        if not character:
            raise self.error("the pattern ends too early")
        if "\ud800" <= character <= "\udfff":
            raise self.error("half of a surrogate pair is no character")
        self.at += 1
        return character

    def alternatives(self, *, top: bool) -> _Part:
        parts = [self.sequence(top=top)]
        while self.peek() == "|":
            self.at += 1
            parts.append(self.sequence(top=top))
        if len(parts) == 1:
            return parts[0]
        return _Part(
            "|".join(part.text for part in parts),
            self.bounded(sum(part.size for part in parts)),
            any(part.deep for part in parts),
            empty=any(part.empty for part in parts),
            endless=any(part.endless for part in parts),
        )

    def sequence(self, *, top: bool) -> _Part:
        if top and self.peek() == "^":
            self.at += 1
        parts: list[_Part] = []
        while (character := self.peek()) not in {"", "|", ")"}:
            if character == "$" and top and self.pattern[self.at + 1 : self.at + 2] in {"", "|"}:
                self.at += 1
                break
            parts.append(self.repeated(self.atom()))
        return _Part(
            "".join(part.text for part in parts),
            self.bounded(sum(part.size for part in parts)),
            any(part.deep for part in parts),
            empty=all(part.empty for part in parts),
            endless=len(parts) == 1 and parts[0].endless,
        )

    def bounded(self, size: int) -> int:
        if size > MAX_SIZE:
            raise self.error(
                f"the pattern is too large; at most {MAX_SIZE:,} characters written out"
            )
        return size

    def atom(self) -> _Part:
        character = self.peek()
        if character == "(":
            return self.group()
        if character == "[":
            return _Part(self.characters(), CLASS_SIZE, single=True, empty=False)
        if character in {"^", "$"}:
            raise self.error(f"{character!r} within the pattern; it matches the whole text anyway")
        if character in {"*", "+", "?"}:
            raise self.error(f"{character!r} repeats nothing; write \\{character}")
        if character == "{":
            raise self.error("'{' repeats nothing; write \\{")
        self.take()
        if character == ".":
            return _Part("[^\n]", CLASS_SIZE, single=True, empty=False)
        if character == "\\":
            escaped = self.escaped()
            if len(escaped) > 1:
                return _Part(f"[{escaped}]", CLASS_SIZE, single=True, empty=False)
            character = escaped
        return _Part(_literal(character), 1, single=True, empty=False)

    def group(self) -> _Part:
        self.take()
        if self.peek() == "?":
            if self.peek(2) != "?:":
                raise self.error(
                    "groups are (...) and (?:...); look-around, names and flags are not known to "
                    "all engines (write [Aa] for either case)"
                )
            self.at += 2
        inner = self.alternatives(top=False)
        if self.peek() != ")":
            raise self.error("a group is not closed; write \\( for the character")
        self.at += 1
        return _Part(f"(?:{inner.text})", inner.size, inner.deep, empty=inner.empty,
                     endless=inner.endless)  # fmt: skip

    def repeated(self, part: _Part) -> _Part:
        sign = self.peek()
        if sign not in {"*", "+", "?", "{"}:
            return part
        self.at += 1
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign) or self.counts()
        text = sign if sign != "{" else f"{{{least}{_upper(least, most)}}}"
        if self.peek() == "?":
            self.at += 1
            text += "?"
        if self.peek() in {"*", "+", "?", "{"}:
            raise self.error("one repeat only; '++' and the like are not known to all engines")
        if most is None and (part.empty or part.endless):
            raise self.error(
                "an endless repeat of what may be empty or endless itself: Java would try for ever"
            )
        return _Part(
            part.text + text,
            self.bounded(part.size * max(most or least, 1)),
            part.deep or (most is None and not part.single),
            empty=least == 0 or part.empty,
            endless=most is None,
        )

    def counts(self) -> tuple[int, int | None]:
        """Read what stands behind an opening brace."""
        end = self.pattern.find("}", self.at)
        words = self.pattern[self.at : end].split(",") if end >= 0 else []
        if not 1 <= len(words) <= 2 or not all(w.isascii() and w.isdigit() for w in words[:1]):
            raise self.error("a repeat is {2}, {2,} or {2,5}; write \\{ for the character")
        last = words[-1]
        if last and not (last.isascii() and last.isdigit()):
            raise self.error("a repeat is {2}, {2,} or {2,5}; write \\{ for the character")
        least, most = int(words[0]), int(last) if last else None
        if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
            raise self.error(f"a repeat goes up, and to {MAX_REPEAT:,} at most")
        self.at = end + 1
        return least, most

    def characters(self) -> str:
        """Read a class, brackets and all."""
        self.take()
        negated = self.peek() == "^"
        self.at += negated
        items: list[str] = []
        while self.peek() != "]":
            items.append(self.class_item())
        if not items:
            raise self.error("a class is empty; write \\] for the character")
        self.at += 1
        return f"[{'^' if negated else ''}{''.join(items)}]"

    def class_item(self) -> str:
        low = self.class_character()
        # A hyphen before the closing bracket is itself.
        if self.peek() != "-" or self.peek(2) == "-]":
            return low if len(low) > 1 else _literal(low)
        self.at += 1
        high = self.class_character()
        if len(low) > 1 or len(high) > 1 or low > high:
            raise self.error(
                "a range goes up from one character to another; write \\- for a hyphen"
            )
        return f"{_literal(low)}-{_literal(high)}"

    def class_character(self) -> str:
        character = self.take()
        if character == "[":
            raise self.error("'[' within a class; write \\[")
        if character == "\\":
            escaped = self.escaped()
            if escaped.startswith("^") and len(escaped) > 1:
                raise self.error("\\D, \\W and \\S stand outside of classes")
            return escaped
        if character in "&~|" and self.peek() == character:
            raise self.error(f"'{character * 2}' within a class; write it once")
        return character

    def escaped(self) -> str:
        """Return the character behind a backslash, or what is in the class that it stands for."""
        character = self.take()
        if character in PUNCTUATION:
            return character
        if character in CONTROLS:
            return CONTROLS[character]
        if character in ASCII_CLASSES:
            return ASCII_CLASSES[character]
        if character.lower() in ASCII_CLASSES:
            return f"^{ASCII_CLASSES[character.lower()]}"
        if character in "xu":
            digits = self.peek(2 if character == "x" else 4)
            if len(digits) == (2 if character == "x" else 4) and _is_hex(digits):
                self.at += len(digits)
                made = chr(int(digits, 16))
                if not "\ud800" <= made <= "\udfff":
                    return made
        raise self.error(
            f"\\{character} is not known to all engines alike; known: \\d \\w \\s \\D \\W \\S \\n "
            "\\r \\t \\f \\v \\xHH \\uHHHH and punctuation"
        )


def _is_hex(digits: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in digits)


def _upper(least: int, most: int | None) -> str:
    return "," if most is None else "" if most == least else f",{most}"


def _literal(character: str) -> str:
    return f"\\{character}" if character in SPECIAL else character
