"""Static pages for plain GET requests, with their headers.  protocol.md, "Channels" """

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator import dashboard

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Allows nothing from other origins, nothing inline, no frames, and no text that becomes markup."""

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

_HASHED = re.compile(r"-[A-Z0-9]{8}\.(?:js|css)$")


@dataclass(frozen=True, slots=True)
class StaticPage:
    """A page: its content type, its bytes, and headers beside those of every response."""

    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Pages = Mapping[str, StaticPage]
"""Pages by path."""


def dashboard_pages() -> dict[str, StaticPage]:
    """Return the files of the dashboard by path: `/` and `/assets/…`."""
    pages = {f"/{path}": _page(path, body) for path, body in dashboard.built().items()}
    pages["/"] = pages.pop("/index.html")
    return pages


def _page(path: str, body: bytes) -> StaticPage:
    # The content under a name with a hash never changes; the page that refers to it is fetched each time.
    cache = "public, max-age=31536000, immutable" if _HASHED.search(path) else "no-cache"
    return StaticPage(
        _TYPES[path.rpartition(".")[2]],
        body,
        {
            "Cache-Control": cache,
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        },
    )
