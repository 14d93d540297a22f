"""A submit of a megabyte that is no good is refused about as quickly as a good one is read."""

from __future__ import annotations

import json
import timeit

import pytest

from coordinator.errors import BadMessage, BadResult
from coordinator.services.dm_check import DmCheck
from coordinator.services.follow.checks import FollowerCheck

pytestmark = pytest.mark.measured

GOOD = json.dumps([{"item": number, "dm": "DM"} for number in range(40_000)]).encode()
WIDE = "[" + ",".join(["[]"] * 330_000) + "]"


@pytest.mark.parametrize("plugin", [DmCheck, FollowerCheck])
@pytest.mark.parametrize("results", [WIDE, f'[{{"item":1,"x":{WIDE}}}]', f'[{{"x":{WIDE}}}]', f'[{{"item":{WIDE}}}]'])
def test_wide_results(plugin: type[DmCheck] | type[FollowerCheck], results: str) -> None:
    reader, raw = plugin("check", None).reader(), results.encode()

    def refuse() -> None:
        with pytest.raises((BadMessage, BadResult)):
            reader.read(raw)

    good = DmCheck("dm_check", None).reader()
    quickest = min(timeit.repeat(refuse, number=1, repeat=3))
    assert quickest < min(timeit.repeat(lambda: good.read(GOOD), number=1, repeat=3)) + 0.005


@pytest.mark.parametrize(
    ("results", "path"),
    [
        ("{}", "$.results"),
        ("[[]]", "$.results[0]"),
        ('[{"item": 1, "dm": "DM"}, {}]', "$.results[1].item"),
        ('[{"item": "1"}]', "$.results[0].item"),
        ('[{"item": true}]', "$.results[0].item"),
        ('[{"item": 1.0}]', "$.results[0].item"),
        ('[{"item": 9223372036854775808}]', "$.results[0].item"),
        ('[{"item": 1, "dm": "DM"}, null]', "$.results[1]"),
    ],
)
def test_where_an_item_is_missing(results: str, path: str) -> None:
    with pytest.raises(BadMessage) as refusal:
        DmCheck("dm_check", None).reader().items(results.encode())
    assert (refusal.value.detail or {})["path"] == path
