"""The requests of a checker to one address: keep-alive connections, through the same proxy as everything else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx

from coordinator.client.causes import cause_by_way
from coordinator.client.checkers import UpstreamOut
from coordinator.client.proxies import proxy_for
from coordinator.errors import ConfigError

_MAX_CONNECTIONS = 64
_MAX_BODY_BYTES = 16 << 20


class HttpResponse(NamedTuple):
    """A server's answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpPool:
    """A pool of connections for GET requests below one base URL; it belongs to one event loop.

    Raises:
        ConfigError: the base is not an `http` or `https` address, or its proxy cannot be used.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout: float = 20.0) -> None:
        try:
            parts = urlsplit(base_url)
            parts.port  # noqa: B018 - reading it checks it
        except ValueError:
            raise ConfigError(f"{base_url!r} is not an HTTP address.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{base_url!r} is not an HTTP address.")

        self._base_url = base_url.rstrip("/")
        self._host = parts.netloc.rpartition("@")[2]
        self.proxy = proxy_for(base_url)
        self._client = httpx.AsyncClient(
            headers=dict(headers),
            proxy=self.proxy,
            trust_env=False,  # `proxy_for` has read it, for the session as well
            verify=ssl.create_default_context() if parts.scheme == "https" else False,
            timeout=httpx.Timeout(timeout, pool=None),
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS),
        )

    async def get(self, path: str, query: Mapping[str, str]) -> HttpResponse:
        """Make one GET request; no redirect is followed.

        Raises:
            UpstreamOut: the server cannot be reached, or does not speak HTTP.
        """
        url = f"{self._base_url}{path}?{urlencode(query)}"
        try:
            async with self._client.stream("GET", url) as response:
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _MAX_BODY_BYTES:
                        raise UpstreamOut(f"{self._host} sends more than {_MAX_BODY_BYTES >> 20} MiB")
        except (httpx.HTTPError, OSError) as failure:
            raise UpstreamOut(cause_by_way(failure, self._host, self.proxy)) from failure

        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(response.status_code, headers, bytes(body))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
