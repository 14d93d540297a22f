"""`GET /v1/progress.json` and `/v1/progress.svg`: the progress of all work, to be shown on other pages.

protocol.md, "Progress for everybody"
"""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape

import msgspec
from websockets.http11 import Response

from coordinator.errors import Unavailable
from coordinator.serve.plain_http import plain, response
from coordinator.wire.progress import Progress

JSON_PATH, BADGE_PATH = "/v1/progress.json", "/v1/progress.svg"

PROGRESS_PATHS = (JSON_PATH, BADGE_PATH)

MAX_ANSWER_AGE = 10
"""Seconds for which browsers and proxies may keep an answer."""

RETRY_AFTER = 5
"""Seconds after which to ask again while the database is away."""

MOST_LABEL_CHARACTERS = 40
"""Characters of the project's name that stand in the badge."""

NOT_OPEN = """\
The progress is told to viewers with a token here, on /v1/stats: for everybody, it takes the setting viewers = open.
"""


@dataclass(frozen=True, slots=True)
class Onlooker:
    """A request without a token: whether viewers need none, and the origin whose pages may read the answer.

    `*`: any page may; None: none of another origin may.
    """

    welcome: bool
    readable_by: str | None


class ProgressPages:
    """Answers requests for the progress."""

    def __init__(self, progress: Callable[[], Awaitable[Progress]]) -> None:
        self._progress = progress

    async def get(self, path: str, onlooker: Onlooker) -> Response:
        """Return the response to a GET request for one of `PROGRESS_PATHS`."""
        if onlooker.welcome:
            answer = await self._answer(path)
        else:
            answer = plain(http.HTTPStatus.FORBIDDEN, NOT_OPEN)
        answer.headers.update(_sharing(onlooker.readable_by))
        return answer

    async def _answer(self, path: str) -> Response:
        try:
            progress = await self._progress()
        except Unavailable:
            told = "The database cannot be reached.\n"
            return plain(http.HTTPStatus.SERVICE_UNAVAILABLE, told, retry_after=RETRY_AFTER)

        headers = {
            "Cache-Control": f"public, max-age={MAX_ANSWER_AGE}",
            "Content-Security-Policy": "default-src 'none'",
        }
        if path == JSON_PATH:
            return response(http.HTTPStatus.OK, "application/json", msgspec.json.encode(progress), **headers)
        return response(http.HTTPStatus.OK, "image/svg+xml", badge(progress).encode(), **headers)


def _sharing(readable_by: str | None) -> dict[str, str]:
    """Return the headers that tell browsers which pages may use an answer."""
    if readable_by is None:
        return {"Cross-Origin-Resource-Policy": "same-origin", "Vary": "Origin"}
    allowed = {"Access-Control-Allow-Origin": readable_by, "Cross-Origin-Resource-Policy": "cross-origin"}
    return allowed if readable_by == "*" else allowed | {"Vary": "Origin"}


# What is written is as wide as its number of characters tells: browsers fit it in by `textLength`, whatever their font.
_BADGE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {value}">
<title>{label}: {value}</title>
<rect width="{width}" height="20" rx="3" fill="#3f4a50"/>
<path d="M{left} 0h{rest}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{rest}z" fill="{colour}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="7" y="14" textLength="{label_length}" lengthAdjust="spacingAndGlyphs">{label}</text>
<text x="{value_x}" y="14" textLength="{value_length}" lengthAdjust="spacingAndGlyphs">{value}</text>
</g>
</svg>
"""

_WORKING, _DONE = "#0f766e", "#17693f"

_MARGIN = 7


def badge(progress: Progress) -> str:
    """Draw the progress in one line, as an SVG image."""
    label = progress.project or "checked"
    if len(label) > MOST_LABEL_CHARACTERS:
        label = f"{label[: MOST_LABEL_CHARACTERS - 1]}…"
    value = "no items" if not progress.total else f"{progress.percent:.1f} %" if progress.percent < 100 else "100 %"

    label_length, value_length = _length(label), _length(value)
    left = label_length + 2 * _MARGIN
    width = left + value_length + 2 * _MARGIN
    return _BADGE.format(
        width=width,
        left=left,
        rest=width - left - 3,
        label=escape(label),
        value=escape(value),
        label_length=label_length,
        value_x=left + _MARGIN,
        value_length=value_length,
        colour=_DONE if progress.percent == 100 else _WORKING,
    )


def _length(text: str) -> int:
    """Return about how many pixels wide a text is; characters of East Asian scripts are twice as wide as Latin ones."""
    return round(sum(12.0 if ord(character) >= 0x1100 else 6.7 for character in text))
