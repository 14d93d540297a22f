"""Responses of plain HTTP.  protocol.md, "Channels" """

from __future__ import annotations

import http
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Response


def plain(status: http.HTTPStatus, text: str, retry_after: int | None = None, **more: str) -> Response:
    """Return a response with one sentence; `retry_after` in seconds, `more` are headers."""
    if retry_after is not None:
        more["Retry-After"] = str(retry_after)
    return response(status, "text/plain; charset=utf-8", text.encode(), **more)


def response(status: http.HTTPStatus, content_type: str, body: bytes, **more: str) -> Response:
    """Return a response that ends its connection; it is not cached unless `more` says so."""
    headers: Any = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            **more,
        }
    )
    return Response(status.value, status.phrase, headers, body)
