"""A small keep-alive pool of HTTP connections to one address, on threads, which is all that a checker needs."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from coordinator.errors import ConfigError

_HTTP_THREADS = 16
_MAX_BODY_BYTES = 16 << 20


class HttpResponse(NamedTuple):
    """A server's answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpPool:
    """A pool of connections for GET requests below one base URL.

    Raises:
        ConfigError: the base is not an `http` or `https` address.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout: float = 20.0) -> None:
        try:
            parts = urlsplit(base_url)
            port = parts.port
        except ValueError:
            raise ConfigError(f"{base_url!r} is not an HTTP address.") from None

        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{base_url!r} is not an HTTP address.")

        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = port
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers)
        self._timeout = timeout

        self._idle: list[http.client.HTTPConnection] = []
        self._threads = ThreadPoolExecutor(_HTTP_THREADS, thread_name_prefix="upstream")

    async def get(self, path: str, query: Mapping[str, str]) -> HttpResponse:
        """Make one GET request.

        Raises:
            OSError, http.client.HTTPException: the server cannot be reached or does not speak HTTP.
        """
        target = f"{self._prefix}{path}?{urlencode(query)}"
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._get, target)

    def close(self) -> None:
        """Close the idle connections; a request under way closes its own."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _get(self, target: str) -> HttpResponse:
        try:
            connection = self._idle.pop()  # list.pop and append are atomic, which is all the locking it takes
        except IndexError:
            return self._exchange(self._connect(), target)
        try:
            return self._exchange(connection, target)
        except (ConnectionError, http.client.BadStatusLine):
            return self._exchange(self._connect(), target)  # the server had closed the idle connection

    def _exchange(self, connection: http.client.HTTPConnection, target: str) -> HttpResponse:
        keep = False
        try:
            connection.request("GET", target, headers=self._headers)
            response = connection.getresponse()
            body = response.read(_MAX_BODY_BYTES)
            keep = response.isclosed() and not response.will_close
            headers = {name.lower(): value for name, value in response.getheaders()}
            return HttpResponse(response.status, headers, body)
        finally:
            if keep:
                self._idle.append(connection)
            else:
                connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
