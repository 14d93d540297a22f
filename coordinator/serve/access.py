"""Which requests are served, by the host that they name and the origin of the page that makes them.

protocol.md, "Channels".  A refusal says which setting would change it.
"""

from __future__ import annotations

from websockets.datastructures import Headers

from coordinator.config import Settings, is_loopback
from coordinator.printable import printable
from coordinator.serve.addresses import HostCheck, forwarded_host, is_same_origin, is_trusted, normal_origin

MAX_HEADER_SHOWN = 100
"""Characters of a header that a refusal repeats."""


class AccessRules:
    """Decides by the headers of a request; each method returns a sentence if it is refused, else None."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = settings.trusted_proxies
        self._hosts = HostCheck((*settings.allowed_hosts, settings.host), loopback_only=is_loopback(settings.host))
        self._origins = frozenset(normal_origin(origin) for origin in settings.allowed_origins)

    def refuse_host(self, peer: str, headers: Headers) -> str | None:
        """Check the host: the one that a trusted proxy was asked for, else the one that the request names."""
        host = self._host(peer, headers)
        if self._hosts.allows(host):
            return None

        name = "no host" if not host else _shown(host)
        told = f"This node does not serve {name}: it is neither its address nor among the allowed_hosts."
        if host:
            told += " If it is a name of this node, set allowed_hosts to it (--allowed-hosts), without the port."
        return told

    def refuse_origin(self, origin: str, peer: str, headers: Headers, *, own: bool) -> str | None:
        """Check the origin of a page: it is on the allowlist, or, with `own`, of the host that the request names."""
        if normal_origin(origin) in self._origins:
            return None
        host = self._host(peer, headers) or ""
        if own and is_same_origin(origin, host):
            return None

        shown = _shown(origin)
        told = f"A page of {shown} may not connect here: it is none of the allowed_origins (--allowed-origins {shown})"
        if own:
            told += f", and the request names another host, {_shown(host)}. {self._advice(peer, headers)}"
        return f"{told.removesuffix('.')}."

    def _host(self, peer: str, headers: Headers) -> str | None:
        forwarded = forwarded_host(headers) if is_trusted(peer, self._trusted) else None
        return headers.get("Host") if forwarded is None else forwarded

    def _advice(self, peer: str, headers: Headers) -> str:
        """Tell how the host that the browser named gets here through a proxy."""
        if forwarded_host(headers) is not None and not is_trusted(peer, self._trusted):
            return f"What {peer} says in X-Forwarded-Host counts once trusted_proxies names it."
        return "A proxy has to pass on the host that the browser named, in Host or in X-Forwarded-Host."


def _shown(header: str) -> str:
    return printable(header[:MAX_HEADER_SHOWN])
