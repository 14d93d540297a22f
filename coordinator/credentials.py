"""Make, hash and compare tokens and secrets.

Both are 32 or more characters from a random source, so a plain SHA-256 is safe: they cannot be guessed, and a slow
hash would not make that harder.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NamedTuple

_SECRET_DOMAIN = b"coordinator.secret\x00"
"""Makes the hash of a client's secret differ from that of an equal token."""


class NewToken(NamedTuple):
    """A new token: `token` is shown once and not stored; the database has `hash`."""

    token_id: str
    token: str
    hash: bytes


def make_token() -> NewToken:
    """Make a token of 43 characters with 256 random bits."""
    token = secrets.token_urlsafe(32)
    return NewToken(secrets.token_hex(8), token, hash_token(token))


def hash_token(token: str) -> bytes:
    """Return the hash by which a token is found; 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def hash_secret(secret: str) -> bytes:
    """Return the hash by which a client's secret is recognised; 32 bytes."""
    return hashlib.sha256(_SECRET_DOMAIN + secret.encode()).digest()


def same(a: bytes, b: bytes) -> bool:
    """Return whether two hashes are equal; takes the same time wherever they differ."""
    return hmac.compare_digest(a, b)
