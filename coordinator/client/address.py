"""The server's address: every form that a volunteer may write, and the URL that it means."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import connect
from websockets.http11 import Response

from coordinator.client.proxies import is_here
from coordinator.errors import ConfigError
from coordinator.printable import printable

CLIENT_PATH = "/v1/client"
_LONGEST_REASON = 500
"""Bytes of a refusal that are shown: anything may stand before a server."""

Trust = ssl.SSLContext | Literal[True] | None
"""Checks of a server's certificate, as `connect` takes them.

True stands for the authorities of this machine, None for no TLS.
"""

_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
"""OpenSSL's numbers for a certificate that no known authority has signed (X509_V_ERR_…)."""

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


def page_url(url: str, client_id: str) -> str:
    """Return the address of a volunteer's own page, for the URL of a client channel.

    It names the client and holds no secret; browsers keep what stands behind `#` to themselves.
    """
    parts = urlsplit(url)
    scheme = "https" if parts.scheme == "wss" else "http"
    path = parts.path.removesuffix(CLIENT_PATH) + "/"
    return urlunsplit((scheme, parts.netloc.rpartition("@")[2], path, "", f"/volunteers/{client_id}"))


def is_loopback(url: str) -> bool:
    """Tell whether the server is on this machine: no proxy stands in between then."""
    return is_here(urlsplit(url).hostname or "")


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


def trust_for(url: str, authority: Path | None) -> Trust:
    """Return what checks the certificate of a server, as `connect` takes it.

    `authority` is the file of the certificates that alone are trusted; with None those of this machine are.

    Raises:
        ConfigError: the file cannot be read, or has no certificate in it.
    """
    trusted: ssl.SSLContext | Literal[True] = True
    if authority is not None:
        try:
            trusted = ssl.create_default_context(cafile=authority)
        except (OSError, ssl.SSLError) as failure:
            reason = failure.strerror or str(failure)
            raise ConfigError(f"ca: {authority} was expected to have certificates in PEM: {reason}") from failure
    return trusted if url.startswith("wss:") else None


def authority_hint(failure: Exception) -> str:
    """Name the option that mends it, if a server's certificate is of an authority that this machine does not know."""
    unknown = isinstance(failure, ssl.SSLCertVerificationError) and failure.verify_code in _UNKNOWN_AUTHORITY
    return " (if its authority is a private one, give that certificate with --ca)" if unknown else ""


def reason_in(response: Response) -> str:
    """Return the sentence with which a server refuses a handshake, on one harmless line; empty if there is none."""
    if not response.headers.get("Content-Type", "").startswith("text/plain"):
        return ""
    text = bytes(response.body)[:_LONGEST_REASON].decode(errors="replace")
    return printable(" ".join(text.split()))


class DirectConnect(connect):
    """Connects to the address that was given and to no other: it is there that the secret is for."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
