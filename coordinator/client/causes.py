"""The causes of failures in the network, in words that a volunteer can act upon."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from coordinator.client.proxies import without_login


def cause_by_way(failure: BaseException, address: str, proxy: str | None) -> str:
    """Say as `cause_of` why `address` could not be reached, by a proxy if there is one, which may be at fault itself.

    The proxy looks the name up and connects, so what fails here of that is about the proxy; but for `socks5`, with
    which this machine may look the name up.
    """
    if proxy is None:
        return cause_of(failure, address)

    shown = without_login(proxy)
    its_own = (ConnectionRefusedError,) if proxy.startswith("socks5:") else (ConnectionRefusedError, socket.gaierror)
    if any(isinstance(error, its_own) for error in _chain(failure)):
        return f"{cause_of(failure, f'the proxy {shown}')} (the proxy is on the way to {address})"
    return f"{cause_of(failure, address)} (by the proxy {shown})"


def cause_of(failure: BaseException, address: str) -> str:
    """Say in one line why `address` could not be reached; the cause may be hidden in the failure's chain."""
    chain = list(_chain(failure))
    for error in chain:
        if isinstance(error, ssl.SSLCertVerificationError):
            why = getattr(error, "verify_message", "") or _one_line(error)
            return (
                f"the certificate of {address} is not accepted: {why} "
                "(a wrong clock, or a proxy that opens TLS, does that, too)"
            )
        if isinstance(error, ssl.SSLError):
            return f"{address} does not speak TLS as expected: {_one_line(error)}"
        if isinstance(error, socket.gaierror):
            return f"the name of {address} is not found (DNS): {error.strerror}"
        if isinstance(error, ConnectionRefusedError):
            return f"nothing listens at {address}: connection refused"
        if isinstance(error, TimeoutError) or type(error).__name__.endswith("Timeout"):
            return f"{address} did not answer in time"
        if isinstance(error, ConnectionError):
            return f"the connection to {address} broke: {error.strerror or type(error).__name__}"

    last = chain[-1]
    return f"{address} cannot be reached: {_one_line(last)}"


def describe(failure: BaseException) -> str:
    """Return any exception as one line: its kind, and its words."""
    return f"{type(failure).__name__}: {_one_line(failure)}" if str(failure) else type(failure).__name__


def _chain(failure: BaseException | None) -> Iterator[BaseException]:
    """Walk from a failure to its causes; several attempts at one address fail as a group."""
    seen: set[int] = set()
    while failure is not None and id(failure) not in seen:
        seen.add(id(failure))
        yield failure
        if isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        else:
            failure = failure.__cause__ or failure.__context__


def _one_line(failure: BaseException) -> str:
    words = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
    return " ".join((words or type(failure).__name__).split())
