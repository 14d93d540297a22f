"""Answer plain HTTP: probes, metrics, the dashboard's files.  protocol.md, "Channels" """

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Response

from coordinator.flow.readiness import Readiness
from coordinator.serve.pages import Pages
from coordinator.serve.plain_http import plain, response
from coordinator.serve.progress_pages import PROGRESS_PATHS, Onlooker, ProgressPages

CLIENT, STATS, ADMIN = "/v1/client", "/v1/stats", "/v1/admin"
CHANNELS = (CLIENT, STATS, ADMIN)

PROBES = ("/healthz", "/readyz")
"""Asked by machines that name whatever host they like."""

ALLOWED = "GET, HEAD, OPTIONS"
"""The methods of plain HTTP, as the header `Allow` names them."""

NO_UPGRADE = """\
This is a WebSocket channel, and the request asks for none: a proxy has to pass on the headers Upgrade and Connection.
"""

Page = Callable[[str], Awaitable[Response]]
"""Answers a GET request for a path."""


class HttpPages:
    """Answers requests that open no channel."""

    def __init__(
        self,
        readiness: Readiness,
        pages: Pages,
        progress_pages: ProgressPages,
        metrics: Callable[[], Awaitable[tuple[str, bytes]]],
    ) -> None:
        self._readiness = readiness
        self._pages = pages
        self._progress_pages = progress_pages
        self._metrics = metrics

    async def of_main_port(self, method: str, path: str, onlooker: Onlooker) -> Response:
        """Answer a request to the port of the channels."""
        if path in PROGRESS_PATHS:
            return await _by_method(method, path, partial(self._progress_pages.get, onlooker=onlooker))
        return await _by_method(method, path, self._get_of_main_port)

    async def of_operations_port(self, method: str, path: str) -> Response:
        """Answer a request to the operations listener."""
        return await _by_method(method, path, self._get_of_operations_port)

    async def _get_of_main_port(self, path: str) -> Response:
        if path in CHANNELS:
            return plain(http.HTTPStatus.UPGRADE_REQUIRED, NO_UPGRADE)
        page = self._pages.get(path)
        if page is not None:
            return response(http.HTTPStatus.OK, page.content_type, page.body, **page.headers)
        return await self._probe(path)

    async def _get_of_operations_port(self, path: str) -> Response:
        if path == "/metrics":
            return response(http.HTTPStatus.OK, *await self._metrics())
        return await self._probe(path)

    async def _probe(self, path: str) -> Response:
        if path == "/healthz":
            return plain(http.HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            report = await self._readiness.report()
            status = http.HTTPStatus.OK if report.ready else http.HTTPStatus.SERVICE_UNAVAILABLE
            shown = {"ready": report.ready, "reasons": report.reasons, "key_form": report.key_form}
            return response(status, "application/json", msgspec.json.encode(shown))
        return plain(http.HTTPStatus.NOT_FOUND, "There is nothing here.\n")


async def _by_method(method: str, path: str, page: Page) -> Response:
    """Answer GET with the page, HEAD with its headers alone, OPTIONS with the methods, and refuse all others."""
    if method == "OPTIONS":
        return Response(204, "No Content", Headers({"Allow": ALLOWED, "Connection": "close"}))
    if method not in ("GET", "HEAD"):
        return method_not_allowed()

    answer = await page(path)
    if method == "HEAD":
        answer.body = b""  # its headers, the length too, stay those of a GET
    return answer


def method_not_allowed() -> Response:
    """Return the response to a method other than those of `ALLOWED`."""
    return plain(http.HTTPStatus.METHOD_NOT_ALLOWED, f"Expected one of the methods {ALLOWED}.\n", Allow=ALLOWED)
