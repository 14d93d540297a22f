"""Addresses of peers and of the proxies before them, and the hosts that requests may name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from websockets.datastructures import Headers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV6_BLOCK = 64
"""Bits of an IPv6 address that count: whoever has one address has a block of them, and counts as one."""


def parse_address(text: str) -> Address | None:
    """Read an address as proxies write it: alone, with a port, in brackets or quotes, after `for=`; None if it is none.

    An IPv4 address that is mapped into IPv6 is the IPv4 address.  RFC 7239, 6
    """
    text = text.strip()
    if text[:4].lower() == "for=":
        text = text[4:]
    text = text.strip('" ')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]

    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def block_of(address: Address) -> str:
    """Return the block that shares its limits with an address: the address itself, or its IPv6 /64."""
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(ipaddress.IPv6Network((address, IPV6_BLOCK), strict=False))
    return str(address)


def is_here(address: str) -> bool:
    """Tell whether all programs of one machine have that address, so that it says nothing."""
    found = parse_address(address)
    return found is not None and found.is_loopback


def client_block(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the block of the client behind a connection.

    `peer` is who connects; behind trusted proxies it is the last address among `forwarded`, nearest proxy last, that
    none of them has.  What is no address there was not written by a proxy that is trusted to write one, so it is
    passed over, and the proxy that sent it stands for its client.
    """
    address = parse_address(peer)
    if address is None:
        return peer
    hops = list(forwarded)
    while hops and _is_trusted(address, trusted):
        before = parse_address(hops.pop())
        if before is None:
            break
        address = before
    return block_of(address)


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Whether an address is that of a trusted proxy."""
    address = parse_address(peer)
    return address is not None and _is_trusted(address, trusted)


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)


def forwarded_for(headers: Headers) -> list[str]:
    """Return the addresses that proxies have noted, nearest proxy last: of X-Forwarded-For, else of Forwarded."""
    lines = headers.get_all("X-Forwarded-For")
    if lines:
        return [hop for line in lines for hop in line.split(",") if hop.strip()]
    elements = [element for line in headers.get_all("Forwarded") for element in line.split(",")]
    parts = [part.strip() for element in elements for part in element.split(";")]
    return [part for part in parts if part[:4].lower() == "for="]


def forwarded_host(headers: Headers) -> str | None:
    """Return the host that the nearest proxy was asked for: of X-Forwarded-Host, else of Forwarded; None without."""
    lines = headers.get_all("X-Forwarded-Host")
    if lines:
        return lines[-1].rpartition(",")[2].strip()
    elements = [element for line in headers.get_all("Forwarded") for element in line.split(",")]
    for part in elements[-1].split(";") if elements else ():
        name, _, value = part.strip().partition("=")
        if name.lower() == "host":
            return value.strip('" ')
    return None


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of that origin comes from the host that a request names; a scheme's own port may be left out."""
    scheme, _, place = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and bool(host) and place.removesuffix(port) == host.lower().removesuffix(port)


def normal_origin(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, without the port that is its scheme's own."""
    origin = origin.lower()
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], ""))


FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
"""Headers by which proxies tell that a request is not their own."""


def is_forwarded(headers: Headers) -> bool:
    """Tell whether a proxy has passed a request on."""
    return any(name in headers for name in FORWARDING_HEADERS)


_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?\Z")
"""A `Host` header: a name or an address, and perhaps a port.  RFC 9110, 7.2"""


class HostCheck:
    """Tells which `Host` headers are served, so that a page of a stranger cannot reach this node by a name of its own.

    On loopback those are the names of loopback; elsewhere any address, and the names that the operator allows.
    """

    def __init__(self, allowed: Sequence[str], *, loopback_only: bool) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._loopback_only = loopback_only

    def allows(self, host: str | None) -> bool:
        """Whether a request with that header is served; the port in it does not matter."""
        match = _HOST.match(host or "")
        if match is None:
            return False
        name = (match["address"] or match["name"]).lower().removesuffix(".")
        if name in self._allowed or name == "localhost":
            return True

        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback_only
