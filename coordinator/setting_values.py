"""The forms of settings' values: read, checked, and shown without secrets.  `config.py` names them.

The readers raise ValueError for text that is not of their form.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECRET_PARAMETERS = ("password", "sslpassword", "passfile")
_MASK = "***"


def mask(dsn: str) -> str:
    """Return a DSN with its passwords masked, in the login and in the parameters."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    netloc = f"{user}{colon}{_MASK if colon else ''}{at}{hosts}"
    query = urlencode(
        [(k, _MASK if k in _SECRET_PARAMETERS else v) for k, v in parse_qsl(parts.query, True)], safe="*/,:"
    )
    # urlunsplit drops the empty host of postgresql:///name, so the text is put together here.
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"


def split_list(value: object) -> object:
    """Split a list that is written with commas: in the environment, in a credential, in one flag."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        parts = [part for entry in value for part in (entry.split(",") if isinstance(entry, str) else [entry])]
        return tuple(part.strip() if isinstance(part, str) else part for part in parts if part != "")
    return value


def origin(text: str) -> str:
    """Read the origin of a web page: scheme, host and perhaps a port."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(text)
    if parts.path not in ("", "/") or parts.query or parts.fragment or "*" in text:
        raise ValueError(text)
    return urlunsplit((parts.scheme, parts.netloc.lower(), "", "", ""))


MOST_PROJECT_CHARACTERS = 80


def project_name(text: str) -> str:
    """Read what people call the project: one line of printable text."""
    if len(text) > MOST_PROJECT_CHARACTERS or not text.isprintable():
        raise ValueError(text)
    return text.strip()


def host_name(text: str) -> str:
    """Read the name of a host, in lower case and without a port."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        raise ValueError(text)
    return text.lower()


def network(text: object) -> Network:
    """Read an address or a network."""
    return ipaddress.ip_network(str(text), strict=False)


def database_dsn(text: str) -> str:
    """Check a DSN more strictly than Postgres does: a password with a raw / ? # or @ would not be masked.

    Raises:
        ValueError: it is not one that can be used.
    """
    parts = urlsplit(text)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    good = all(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:\d+)?", host) for host in hosts)
    if parts.scheme not in ("postgres", "postgresql") or not text.startswith(f"{parts.scheme}://"):
        raise ValueError(text)
    if not good or "@" in parts.path or parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError(text)
    return text


def lower(value: object) -> object:
    """Return text in lower case, and anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def absolute(path: Path) -> Path:
    """Return a path that does not depend on the working folder; `~` is the home."""
    return path.expanduser().absolute()
