"""The server's address: every form that a volunteer may write, and the URL that it means."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from coordinator.errors import ConfigError

CLIENT_PATH = "/v1/client"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_LOOPBACK = ("localhost", "127.", "::1")


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
    return (urlsplit(url).hostname or "").startswith(_LOOPBACK)
