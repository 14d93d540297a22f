"""Takes the text of a migration apart into its statements.

Postgres carries out a text of several statements as one, but an extension such as Citus takes those that change
tables one at a time; and of one statement it can be said where it failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Comments within comments and quoted texts are longer than a token can say: what begins them is found here.
_TOKEN = re.compile(
    r"""
    (?P<blank>\s+ | --[^\n]*)
  | (?P<comment>/\*)
  | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
  | (?P<text>'(?:[^']|'')*' | "(?:[^"]|"")*")
  | (?P<dollars>\$(?:[^\W\d]\w*)?\$)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<end>;)
  | (?P<other>\d[\w.$]* | .)
    """,
    re.VERBOSE | re.DOTALL,
)

_COMMENT_MARK = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, and the line of the file at which it begins, from 1."""

    sql: str
    line: int


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a text in order, without the semicolons behind them.

    A body that is written as `BEGIN ATOMIC … END` belongs to its statement.

    Raises:
        ValueError: a comment, a quoted text or a body does not end.
    """
    at, start, depth = 0, None, 0
    before = ""
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None
        kind, word = token.lastgroup, token[0].upper()
        at = _end(text, token)
        if kind in ("blank", "comment"):
            continue

        if kind == "end" and not depth:
            if start is not None:
                yield Statement(text[start : token.start()].rstrip(), text.count("\n", 0, start) + 1)
            start, before = None, ""
            continue

        start = token.start() if start is None else start
        if kind == "word":
            depth += _opened(word, before, depth)
        before = word
    if depth:
        raise ValueError("a body that begins with BEGIN ATOMIC does not end")
    if start is not None:
        yield Statement(text[start:].rstrip(), text.count("\n", 0, start) + 1)


def _opened(word: str, before: str, depth: int) -> int:
    """Return how many bodies a word opens: an `END` closes one, be it that of a body or of a `CASE` in it."""
    if word == "ATOMIC" and before == "BEGIN":
        return 1
    if depth and word == "CASE":
        return 1
    return -1 if depth and word == "END" else 0


def _end(text: str, token: re.Match[str]) -> int:
    """Return where that token ends.

    Raises:
        ValueError: it does not.
    """
    if token.lastgroup == "comment":
        return _end_of_comment(text, token.end())
    if token.lastgroup == "dollars":
        end = text.find(token[0], token.end())
        if end < 0:
            raise ValueError(f"a text that begins with {token[0]} does not end")
        return end + len(token[0])
    if token[0] in ("'", '"'):
        raise ValueError(f"a text that begins with {token[0]} does not end")
    return token.end()


def _end_of_comment(text: str, at: int) -> int:
    """Return where a comment ends, in which there may be others."""
    depth = 1
    while depth:
        mark = _COMMENT_MARK.search(text, at)
        if mark is None:
            raise ValueError("a comment that begins with /* does not end")
        depth += 1 if mark[0] == "/*" else -1
        at = mark.end()
    return at
