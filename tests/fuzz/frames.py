"""Strategies for what a peer may send: messages of its channel, messages that are damaged, and anything else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from coordinator.wire.codec import encode
from tests.wire.strategies import messages

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
"""Examples of each test; `python -m tests.fuzz` takes more."""

SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

WORDS = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"\xff", b"1e999", b"null", b"[" * 2000)

DEEP = b'"x":' + b"[" * 2000 + b"]" * 2000 + b","
"""A field that nobody knows, at the beginning of an object."""


@st.composite
def damaged(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """A good frame of which a part is missing, stands there twice, or is something else."""
    frame = draw(good)
    if draw(st.integers(0, 9)) == 0:
        return frame[:1] + DEEP + frame[1:]
    start = draw(st.integers(0, len(frame)))
    end = draw(st.integers(start, min(len(frame), start + 20)))
    between = draw(st.sampled_from(WORDS) | st.binary(max_size=8) | st.just(frame[start:end] * 2))
    return frame[:start] + between + frame[end:]


def frames(
    types: Sequence[type[msgspec.Struct]], more: Mapping[type[msgspec.Struct], st.SearchStrategy[Any]] | None = None
) -> st.SearchStrategy[bytes]:
    """Frames of these messages, good ones more often than others; `more` are strategies for some of the types."""
    good = st.one_of([(more or {}).get(kind, messages(kind)) for kind in types]).map(encode)
    return good | good | damaged(good) | st.binary(max_size=40)
