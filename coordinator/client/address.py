"""The server's address: every form that a volunteer may write, and the URL that it means."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import connect

from coordinator.errors import ConfigError

CLIENT_PATH = "/v1/client"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def client_url(text: str) -> str:
    """Return the URL of a server's client channel.

    Takes `ws://`, `wss://`, `http://`, `https://` or no scheme (then `ws://`), with or without the path.

    Raises:
        ConfigError: the text is not the address of a server.
    """
    message = f"{text!r} is not the address of a server; expected something like ws://host:8765."
    try:
        parts = urlsplit(text if "://" in text else f"ws://{text}")
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ConfigError(message) from None

    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(message)

    path = parts.path.rstrip("/")
    if not path.endswith(CLIENT_PATH):
        path += CLIENT_PATH
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def is_loopback(url: str) -> bool:
    """Tell whether the server is on this machine: no proxy stands in between then."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_secrecy(url: str, *, plaintext: bool) -> None:
    """Refuse to send a secret where everybody on the way can read it.

    `url` is that of a channel; with `plaintext` it may go anywhere.

    Raises:
        ConfigError: the URL is beyond this machine, and without TLS.
    """
    if url.startswith("ws://") and not plaintext and not is_loopback(url):
        raise ConfigError(
            f"{url} is beyond this machine and without TLS, so the secret could be read on the way; "
            "expected a wss:// address, or --plaintext if the network in between is your own."
        )


class DirectConnect(connect):
    """Connects to the address that was given and to no other: it is there that the secret is for."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
