"""Words of sentences that depend on a number."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, which takes an s in the plural: `1 item`, `2,000 items`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
