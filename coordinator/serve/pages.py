"""What plain GETs are answered, and what browsers are told about it.  protocol.md, "Channels" """

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
"""Nothing from elsewhere, nothing inline, nobody frames it, and no text ever becomes markup."""

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

_HASHED = re.compile(r"-[A-Z0-9]{8}\.(?:js|css)$")


@dataclass(frozen=True, slots=True)
class HttpPage:
    """One answer: its content type, its bytes, and headers beside those that all have."""

    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Pages = Mapping[str, HttpPage]
"""By path."""


def dashboard_pages() -> dict[str, HttpPage]:
    """The dashboard: `/` and `/assets/…`."""
    pages = {f"/{path}": _page(path, body) for path, body in dashboard.built().items()}
    pages["/"] = pages.pop("/index.html")
    return pages


def _page(path: str, body: bytes) -> HttpPage:
    # A name with a hash in it never gets another content; the page that names it is asked for each time.
    cache = "public, max-age=31536000, immutable" if _HASHED.search(path) else "no-cache"
    return HttpPage(
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
