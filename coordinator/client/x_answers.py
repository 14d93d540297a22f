"""The answers of the X (Twitter) API v1.1, and what each means for a volunteer: the one table of them.

The codes are those of the API's documentation, "Error codes & responses".  A row is found by its code, whatever the
status, since the API sends some codes with several; answers without a known code are read by their status.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec

from coordinator.client.http_pool import HttpResponse
from coordinator.printable import printable

_MAX_SAID = 200
"""Characters of an answer that are shown to the volunteer."""

_object_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class Meaning(Enum):
    """The kinds of answers, by whom they are about."""

    FOUND = auto()
    """The item's answer."""
    MISSING = auto()
    """The item: there is no such account, or it is suspended."""
    HIDDEN = auto()
    """The item: the account does not show this to the volunteer, now and later."""
    UNCLEAR = auto()
    """The item or the volunteer: only the answers for other items tell."""
    LIMITED = auto()
    """The moment: too many requests."""
    OUT = auto()
    """The moment: the API, or the way to it, does not work."""
    VOLUNTEER = auto()
    """The volunteer: its token, its account or its settings."""


class Row(NamedTuple):
    """One answer: its usual status, its code if it has one, its meaning, and a sentence for the volunteer."""

    status: int
    code: int | None
    meaning: Meaning
    sentence: str


_MAKE_ANOTHER = "make a new one, and give it as --option token=env:VARIABLE"

BY_CODE: tuple[Row, ...] = (
    Row(404, 17, Meaning.MISSING, "There is no such account."),
    Row(404, 34, Meaning.MISSING, "There is no such account."),
    Row(404, 50, Meaning.MISSING, "There is no such account."),
    Row(404, 108, Meaning.MISSING, "There is no such account."),
    Row(403, 63, Meaning.MISSING, "The account is suspended."),
    Row(403, 136, Meaning.HIDDEN, "The account has blocked the one that asks."),
    Row(403, 179, Meaning.HIDDEN, "The account is protected."),
    Row(400, 25, Meaning.UNCLEAR, "The API does not take this name."),
    Row(400, 38, Meaning.UNCLEAR, "The API does not take this name."),
    Row(400, 44, Meaning.UNCLEAR, "The API does not take this name."),
    Row(403, 163, Meaning.UNCLEAR, "The API cannot determine the account of the profile, or this one."),
    Row(429, 88, Meaning.LIMITED, "The API's limit is reached."),
    Row(503, 130, Meaning.OUT, "The API is over capacity."),
    Row(500, 131, Meaning.OUT, "The API has an internal error."),
    Row(401, 32, Meaning.VOLUNTEER, f"The API does not accept the token: {_MAKE_ANOTHER}."),
    Row(403, 64, Meaning.VOLUNTEER, "The account that the token belongs to is suspended."),
    Row(410, 68, Meaning.VOLUNTEER, "The API's base URL is of a version that is retired; expected one of v1.1."),
    Row(403, 87, Meaning.VOLUNTEER, "The token's app is not permitted to make these requests."),
    Row(401, 89, Meaning.VOLUNTEER, f"The token is invalid or has expired: {_MAKE_ANOTHER}."),
    Row(403, 92, Meaning.VOLUNTEER, "The API wants TLS: give an https:// address as base_url."),
    Row(403, 99, Meaning.VOLUNTEER, f"The API cannot verify the token: {_MAKE_ANOTHER}."),
    Row(401, 135, Meaning.VOLUNTEER, "The API refuses the time of the request: set this machine's clock."),
    Row(400, 215, Meaning.VOLUNTEER, "The API got no token that it can read: give one as --option token=env:VARIABLE."),
    Row(403, 220, Meaning.VOLUNTEER, "The token may not be used for these requests."),
    Row(403, 226, Meaning.VOLUNTEER, "The API takes these requests for abuse; wait a day."),
    Row(403, 231, Meaning.VOLUNTEER, "The token's account has to verify its login, on the web."),
    Row(401, 239, Meaning.VOLUNTEER, f"The token is not valid: {_MAKE_ANOTHER}."),
    Row(410, 251, Meaning.VOLUNTEER, "The API has retired these requests."),
    Row(403, 261, Meaning.VOLUNTEER, "The token's app is restricted by the API; look at it in the developer portal."),
    Row(403, 326, Meaning.VOLUNTEER, "The token's account is locked; log in on the web to unlock it."),
    Row(401, 416, Meaning.VOLUNTEER, "The token's app is suspended or does not exist any more."),
    Row(403, 453, Meaning.VOLUNTEER, "The token's access level is too low for these requests: get a higher one."),
)  # fmt: skip
"""The answers with a code."""

BY_STATUS: tuple[Row, ...] = (
    Row(400, None, Meaning.UNCLEAR, "The API does not take this request."),
    Row(401, None, Meaning.UNCLEAR, "The API does not let this request in."),
    Row(403, None, Meaning.UNCLEAR, "The API refuses this request."),
    Row(404, None, Meaning.MISSING, "There is no such account."),
    Row(406, None, Meaning.UNCLEAR, "The API does not take this request."),
    Row(408, None, Meaning.OUT, "The API was too slow."),
    Row(410, None, Meaning.VOLUNTEER, "The API has retired these requests."),
    Row(420, None, Meaning.LIMITED, "The API's limit is reached."),
    Row(422, None, Meaning.UNCLEAR, "The API does not take this request."),
    Row(429, None, Meaning.LIMITED, "The API's limit is reached."),
    Row(500, None, Meaning.OUT, "The API has an internal error."),
    Row(502, None, Meaning.OUT, "The API is down or being upgraded."),
    Row(503, None, Meaning.OUT, "The API is overloaded."),
    Row(504, None, Meaning.OUT, "The API was too slow."),
)
"""The answers without a code that is known, if they are JSON; those of other statuses from 500 on are outages."""

PROTECTED = Row(401, None, Meaning.HIDDEN, "The account is protected.")
"""The answer with the body `{"request": …, "error": "Not authorized."}`.

It is about the account that was asked for, unless accounts are refused so that everyone may see.
"""

NO_JSON = Row(200, None, Meaning.OUT, "A page came instead of the API's answer.")
"""An answer of any status that is no JSON object: something between here and the API has sent it."""

LIMITS = {
    "x-rate-limit": "in 15 minutes",
    "x-user-limit-24hour": "a day for the token's account",
    "x-app-limit-24hour": "a day for the token's app",
}
"""The limits that any answer may tell: how the names of its three headers begin, and what its requests are.

`…-limit` has how many requests there are, `…-remaining` how many are left, `…-reset` when there are new ones, in
seconds since 1970.
"""

_code_rows = {row.code: row for row in BY_CODE}
_status_rows = {row.status: row for row in BY_STATUS}
_MARKED_FINAL = {"client-forbidden": _code_rows[453], "usage-capped": _code_rows[88]}
"""The ends of `type` in answers of the form that the API's next version gives, and what they mean."""


class AnswerRead(NamedTuple):
    """The meaning of one answer; `why` is for the volunteer, `found` is the body if it is a JSON object."""

    status: int
    meaning: Meaning
    why: str
    found: dict[str, Any]


def read_answer(reply: HttpResponse) -> AnswerRead:
    """Find what an answer means."""
    try:
        found = _object_decoder.decode(reply.body)
    except msgspec.MsgspecError:
        too_many = reply.status in (420, 429)
        row = _status_rows[429] if too_many else NO_JSON
        return AnswerRead(reply.status, row.meaning, f"{row.sentence} ({_said(reply, {})})", {})

    if 200 <= reply.status < 300 and "errors" not in found:
        return AnswerRead(reply.status, Meaning.FOUND, "", found)
    row = _row(reply.status, found)
    return AnswerRead(reply.status, row.meaning, f"{row.sentence} ({_said(reply, found)})", found)


def _row(status: int, found: Mapping[str, Any]) -> Row:
    for code in _codes(found):
        if code in _code_rows:
            return _code_rows[code]

    kind = str(found.get("type", "")).rpartition("/")[2]
    if kind in _MARKED_FINAL:
        return _MARKED_FINAL[kind]

    if status == PROTECTED.status and str(found.get("error", "")).lower().startswith("not authorized"):
        return PROTECTED
    if status == 404 and _codes(found):
        return _status_rows[403]  # not about the account, or its code would be known
    if status in _status_rows:
        return _status_rows[status]
    return _status_rows[500] if status >= 500 else _status_rows[403]


def _codes(found: Mapping[str, Any]) -> list[int]:
    errors = found.get("errors")
    codes = [error.get("code") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return [code for code in codes if isinstance(code, int)]


def _said(reply: HttpResponse, found: Mapping[str, Any]) -> str:
    """Return the answer in its own words, short and harmless for a terminal."""
    errors = found.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else found
    words = first.get("message") or first.get("detail") or first.get("error")
    text = str(words) if words else reply.body[:_MAX_SAID].decode("utf-8", "replace").strip()

    code = f", code {first['code']}" if isinstance(first.get("code"), int) else ""
    text = printable(" ".join(text.split())[:_MAX_SAID])
    return f"{reply.status}{code}{': ' if text else ''}{text}"
