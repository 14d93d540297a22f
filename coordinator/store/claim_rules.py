"""The settings by which a claim is limited, as its statement takes them."""

from __future__ import annotations

from coordinator.model import ServiceSettings


def hold_rule(settings: ServiceSettings) -> tuple[int, int, int]:
    """Return what `may_hold` goes by: the items of a bucket, and the buckets that a newcomer, and anyone, may hold."""
    return settings.bucket_size, settings.newcomer_buckets, settings.max_held_buckets


def budget_rule(settings: ServiceSettings) -> tuple[int | None, int | None]:
    """Return what `budget_left` goes by: items a minute, and buckets that all clients hold; None: any number."""
    return settings.items_per_minute, settings.max_claimed_buckets
