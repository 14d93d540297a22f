"""The columns of a CSV file: what separates them, and which one is the key.

Only what is certain is taken: a file whose first line can be read in two ways is refused, with both named.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

from coordinator.errors import ConfigError

KEY_NAMES = ("key", "screen_name", "username", "handle", "account")
"""The names by which a column, or a field of JSON Lines, is known to be the key; the first that is there counts.

A column may have its name in any case, a field of JSON has it as it stands here.
"""

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters that are recognised; any other one has to be named."""

MAX_SHOWN = 80
"""Characters of a first line that are shown."""

_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}

_SEPARATOR_LINE = re.compile(r'"?sep=(?P<delimiter>[^\w"\r\n])"?[ \r\n]*', re.IGNORECASE)

_find_other_delimiter = re.compile("[;\t|]").search


class Columns(NamedTuple):
    """The columns of a file.

    `names` are those of the header, empty for a column without one; `key` is the place of the key among them.
    `undecided`: there is one column, and no line has shown yet what would separate two.
    """

    names: Sequence[str]
    key: int
    delimiter: str
    undecided: bool = False

    def doubt(self, text: str) -> str | None:
        """Return a delimiter in a text that may have been meant as one."""
        found = _find_other_delimiter(text) if self.undecided else None
        return None if found is None else found[0]


def delimiter_of(text: str) -> str:
    """Read a delimiter that somebody names.

    Raises:
        ConfigError: it is not one.
    """
    found = _WORDS.get(text.lower(), text)
    if len(found) != 1 or found.isalnum() or found in '"\r\n\0':
        raise ConfigError(
            f"delimiter: expected comma, semicolon, tab, pipe or one character that is no letter, digit or quote, "
            f"not {text!r}"
        )
    return found


def separator_line(line: str) -> str | None:
    """Return the delimiter that a first line such as `sep=;` names, as spreadsheets write it; None if it is no such."""
    found = _SEPARATOR_LINE.fullmatch(line)
    return None if found is None else found["delimiter"]


def delimiter_of_header(line: str, key: str | None) -> tuple[str, bool]:
    """Find the delimiter with which a header has a column for the key; and whether that is undecided.

    Raises:
        ConfigError: there is no such column, or more than one delimiter makes one.
    """
    readings = {delimiter: _cells(line, delimiter) for delimiter in DELIMITERS}
    readings = {delimiter: names for delimiter, names in readings.items() if _place_of_key(names, key) is not None}
    if not readings:
        raise no_key_column(line, key)
    if all(len(names) == 1 for names in readings.values()):
        return ",", True
    if len(readings) > 1:
        raise _doubtful(line, list(readings))
    return next(iter(readings)), False


def delimiter_of_rows(lines: Sequence[str]) -> tuple[str, bool]:
    """Find the delimiter of a file without a header by its first lines; and whether it is undecided.

    Raises:
        ConfigError: they can be read in more than one way.
    """
    readings = {delimiter: {len(_cells(line, delimiter)) for line in lines} for delimiter in DELIMITERS}
    splitting = [delimiter for delimiter, counts in readings.items() if counts != {1}]
    if not splitting:
        return ",", True
    if len(splitting) > 1 or len(readings[splitting[0]]) > 1:
        split = next(line for line in lines if any(len(_cells(line, one)) > 1 for one in splitting))
        raise _doubtful(split, splitting)
    return splitting[0], False


def header_columns(names: Sequence[str], key: str | None, line: str, delimiter: str, undecided: bool) -> Columns:
    """Make the columns of a header.

    Raises:
        ConfigError: it has no column for the key, or names one twice.
    """
    names = [name.strip() for name in names]
    named = [name for name in names if name]
    if len(set(named)) != len(named):
        raise ConfigError(f"The header line names a column twice: {', '.join(names)}.")

    place = _place_of_key(names, key)
    if place is None:
        raise no_key_column(line, key)
    if names[place] != "key" and "key" in names:
        raise ConfigError(f"With {names[place]!r} as the key, the column 'key' would be a second one; rename it.")
    return Columns(names, place, delimiter, undecided)


def unnamed_columns(line: str, delimiter: str, undecided: bool) -> Columns:
    """Make the columns of a file without a header: the first is the key, the others have no name."""
    return Columns(["key", *[""] * (len(_cells(line, delimiter)) - 1)], 0, delimiter, undecided)


def no_key_column(line: str, key: str | None) -> ConfigError:
    """Return the error of a first line that names no key column."""
    if key is not None:
        return ConfigError(f"There is no column {key!r} in the first line: {_shown(line)}")
    return ConfigError(
        f"The first line names no key column ({', '.join(KEY_NAMES)}): {_shown(line)}\n"
        "If it names one by another word, give --key; if it is an item itself, give --no-header."
    )


def named(delimiter: str) -> str:
    """Return a delimiter as people read it."""
    return "tab" if delimiter == "\t" else f'"{delimiter}"'


def _place_of_key(names: Sequence[str], key: str | None) -> int | None:
    """Find the column that is the key: the one that is named `key`, by default one of `KEY_NAMES` in any case."""
    if key is not None:
        return names.index(key) if key in names else None
    lower = [name.lower() for name in names]
    for name in KEY_NAMES:
        if name in lower:
            return (names if name in names else lower).index(name)
    return None


def _doubtful(line: str, delimiters: Sequence[str]) -> ConfigError:
    found = " or ".join(map(named, delimiters))
    ways = " or ".join(f"--delimiter {named(one)}" for one in delimiters)
    rest = "" if len(delimiters) > 1 else ", or another one if it is part of the keys"
    return ConfigError(
        f"It is doubtful whether {found} separates the columns in this line: {_shown(line)}\nSay it: {ways}{rest}."
    )


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return [line]


def _shown(line: str) -> str:
    text = line.rstrip("\r\n")
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
