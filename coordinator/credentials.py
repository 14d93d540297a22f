"""Tokens and secrets: how they are made, hashed and compared.

Both are 32 characters or more from a program's random source, so a plain SHA-256 keeps them safe: there is
nothing to guess that a slow hash would slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NamedTuple

_SECRET_DOMAIN = b"coordinator.secret\x00"
"""Keeps a client's secret from being good as a token whose hash it happens to share."""


class NewToken(NamedTuple):
    """A token as it is made; `token` is shown once and kept nowhere, `hash` is what the database has."""

    token_id: str
    token: str
    hash: bytes


def make_token() -> NewToken:
    """A new token: 43 characters, 256 random bits."""
    token = secrets.token_urlsafe(32)
    return NewToken(secrets.token_hex(8), token, hash_token(token))


def hash_token(token: str) -> bytes:
    """What a token is found by; 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def hash_secret(secret: str) -> bytes:
    """What a client's secret is known by; 32 bytes."""
    return hashlib.sha256(_SECRET_DOMAIN + secret.encode()).digest()


def same(a: bytes, b: bytes) -> bool:
    """Whether two hashes are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(a, b)
