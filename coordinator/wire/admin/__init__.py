"""The messages of the admin channel (`/v1/admin`): a module for each noun, a request and its answer side by side.
protocol.md, "Admin channel"

Each request is answered by `ok`, with the fields that the type of its answer has, or by `error`.
"""

from __future__ import annotations

from coordinator.wire.admin import (
    activity,
    buckets,
    clients,
    hello,
    items,
    nodes,
    notices,
    results,
    services,
    system,
    tokens,
)
from coordinator.wire.admin.hello import AdminHello, AdminWelcome
from coordinator.wire.frames import Answer, Request

ANSWERS: dict[type[Request], type[Answer]] = {
    **hello.ANSWERS,
    **services.ANSWERS,
    **items.ANSWERS,
    **buckets.ANSWERS,
    **results.ANSWERS,
    **clients.ANSWERS,
    **notices.ANSWERS,
    **tokens.ANSWERS,
    **activity.ANSWERS,
    **nodes.ANSWERS,
    **system.ANSWERS,
}
"""Each request with the answer that is no error."""

ADMIN_ONLY: frozenset[type[Request]] = (
    services.ADMIN_ONLY | items.ADMIN_ONLY | clients.ADMIN_ONLY | tokens.ADMIN_ONLY | nodes.ADMIN_ONLY
)
"""Requests that an operator's token is not enough for."""

__all__ = ["ADMIN_ONLY", "ANSWERS", "AdminHello", "AdminWelcome"]
