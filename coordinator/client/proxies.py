"""The one way out: which proxy, if any, stands between this machine and an address.

The session with the server and the requests of the built-in checkers ask here, so both go the same way: through
HTTPS_PROXY, HTTP_PROXY or ALL_PROXY (or what the system is set to), but for what NO_PROXY names, and this machine.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import urllib.request
from urllib.parse import SplitResult, urlsplit

from coordinator.errors import ConfigError

_KINDS = {"https": ("https", "all"), "wss": ("https", "all"), "http": ("http", "all"), "ws": ("https", "http", "all")}
"""The variables that hold for an address, by its scheme; a WebSocket without TLS goes as RFC 6455 has it (§4.1)."""

_SCHEMES = ("http", "https", "socks5", "socks5h")

_SOCKS_PACKAGES = ("socksio", "python_socks")
"""Packages that the HTTP client and the WebSocket client need for SOCKS: the extra `socks`."""


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for an address; None if the way is direct.

    Raises:
        ConfigError: the proxy that is set cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_here(host) or _is_excepted(host, parts.port):
        return None

    proxies = urllib.request.getproxies()
    for kind in _KINDS[parts.scheme]:
        if proxies.get(kind):
            return _checked(proxies[kind], f"{kind.upper()}_PROXY")
    return None


def without_login(proxy: str) -> str:
    """Return a proxy's URL without name and password, so that it may be shown."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_here(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _checked(proxy: str, variable: str) -> str:
    """Return a proxy's URL, with a scheme, if it can be used.

    Raises:
        ConfigError: it cannot.
    """
    url = proxy if "://" in proxy else f"http://{proxy}"
    parts = _split(url)
    if parts is None or parts.scheme not in _SCHEMES or not parts.hostname:
        raise ConfigError(
            f"{variable} names no proxy that can be used; expected an address like http://proxy:3128 or socks5h://proxy:1080."
        )

    if parts.scheme.startswith("socks"):
        missing = [name for name in _SOCKS_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"{variable} names a SOCKS proxy, {without_login(url)}, which needs more packages: "
                "install coordinator[socks], or unset the variable."
            )
    return url


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return None
    return parts


def _is_excepted(host: str, port: int | None) -> bool:
    """Tell whether NO_PROXY names the host: itself, its domain, or, which Python does not know, its network."""
    named = f"[{host}]" if ":" in host else host
    if urllib.request.proxy_bypass(named if port is None else f"{named}:{port}"):
        return True

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _networks(urllib.request.getproxies().get("no", "")))


def _networks(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for part in text.split(","):
        try:
            networks.append(ipaddress.ip_network(part.strip().strip("[]"), strict=False))
        except ValueError:
            continue
    return networks
