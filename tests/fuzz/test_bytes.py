"""Everything that reads bytes, fuzzed for a moment; `by_coverage.py` does it for longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.by_coverage import SEEDS, TARGETS
from tests.fuzz.frames import SETTINGS, WORDS

PIECES = [*WORDS, *(seed for seeds in SEEDS.values() for seed in seeds)]


@pytest.mark.parametrize("target", TARGETS)
@SETTINGS
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=6))
def test_bytes(target: str, parts: list[bytes]) -> None:
    TARGETS[target](b"".join(parts))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    assert SEEDS[target]
    for seed in SEEDS[target]:
        TARGETS[target](seed)
