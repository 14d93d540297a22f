"""Keys of items and accounts: which texts are keys, how one is shown, and which are the same.  protocol.md, "Keys"

Whatever takes a key, from a file, a message or a result, reads it here, so that one account is one item and one node
of the follow graph, however it is written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

KeyForm = Literal["handle", "exact"]
"""How a database compares keys; chosen when it is made."""

MAX_KEY_LENGTH = 256
"""Characters of a key."""

MAX_HANDLE_LENGTH = 15

_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Categories of characters that cannot be seen: two keys that differ in them look the same."""

is_plain = re.compile(r"[a-z0-9_.-]{1,256}").fullmatch
"""Whether a key is the same in every form, as it stands: most keys are, and need no other look."""

_is_handle = re.compile(r"[A-Za-z0-9_]{1,15}").fullmatch

_holds_handle = re.compile(
    r"@?([A-Z0-9_]{1,15})|https?://(?:www\.|m\.|mobile\.)?(?:x|twitter)\.com/([A-Z0-9_]{1,15})/?(?:\?.*)?",
    re.IGNORECASE | re.ASCII,
).fullmatch

Key = tuple[str, str | None]
"""A key as it is shown, and its canonical form, by which it is compared, where that is another."""


def read_key(given: str, form: KeyForm) -> Key:
    """Read a key that somebody has written.

    Raises:
        ValueError: it is empty, too long or has an invisible character; the message says what was expected.
    """
    if is_plain(given):
        return given, None
    if not _is_handle(given):
        given = _visible(given)
        found = _holds_handle(given) if form == "handle" else None
        if found is None:
            return given, None
        given = found[1] or found[2]

    if form == "exact":
        return given, None
    lower = given.lower()
    return given, None if lower == given else lower


def compared(key: Key) -> str:
    """Return the form by which a key is compared: two keys are the same if theirs are equal."""
    return key[1] or key[0]


def canonical(given: str, form: KeyForm) -> str:
    """Return the form by which a key that is looked for is compared; what is no key, and so not found, as it is."""
    try:
        return compared(read_key(given, form))
    except ValueError:
        return given


def canonical_of_all(keys: Sequence[str], form: KeyForm) -> Sequence[str]:
    """Do the same for many keys: by one look, if all of them are alike."""
    text = "".join(keys)
    if text.isascii() and (form == "exact" or (text == text.lower() and "@" not in text and "/" not in text)):
        return keys
    if text.isascii() and text.replace("_", "").isalnum() and max(map(len, keys)) <= MAX_HANDLE_LENGTH:
        return list(map(str.lower, keys))
    return [canonical(key, form) for key in keys]


def prefix_ranges(prefix: str, form: KeyForm) -> list[tuple[str, bool]]:
    """Return how the canonical forms of keys with a prefix begin, in their order, and whether only handles count there.

    A handle has its prefix whatever its case; all other keys have theirs as it is written.
    """
    text = unicodedata.normalize("NFC", prefix)
    found = _holds_handle(text) if form == "handle" else None
    folded = text if found is None else (found[1] or found[2]).lower()
    return [(text, False)] if folded == text else sorted([(text, False), (folded, True)])


def is_handle(key: str) -> bool:
    """Return whether a key that is shown is a handle."""
    return _is_handle(key) is not None


def refuse_invisible(text: str) -> None:
    """Check that all characters can be seen.

    Raises:
        ValueError: one cannot; the message names it.
    """
    if text.isprintable():
        return
    for character in text:
        if unicodedata.category(character) in _INVISIBLE:
            name = unicodedata.name(character, "CONTROL CHARACTER")
            raise ValueError(f"the invisible character U+{ord(character):04X} {name} is refused")


def _visible(given: str) -> str:
    """Return a key in Unicode NFC.

    Raises:
        ValueError: as `read_key`.
    """
    if 1 <= len(given) <= MAX_KEY_LENGTH:
        if given.isascii() and given.isprintable():
            return given
        refuse_invisible(given)
        normal = unicodedata.normalize("NFC", given)
        if len(normal) <= MAX_KEY_LENGTH:
            return normal
    raise ValueError(f"a string of 1 to {MAX_KEY_LENGTH} characters was expected")
