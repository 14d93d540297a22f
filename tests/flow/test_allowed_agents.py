"""Programs that may work for a service: the rule alone, program by program."""

from __future__ import annotations

import pytest

from coordinator.flow.allowed_agents import too_old
from coordinator.model import ServiceSettings

LISTED = {"ours": "1.2.10", "other": "2"}


@pytest.mark.parametrize(
    ("agent", "minimum"),
    [
        ("ours/1.2.9", "1.2.10"),
        ("ours/1.2", "1.2.10"),
        ("ours/0.9.99 (linux)", "1.2.10"),
        ("ours/1.2.9-rc1", "1.2.10"),
        ("other/1.99", "2"),
        ("ours/1.2.10", ""),
        ("ours/1.2.10.0", ""),
        ("ours/1.2.10-rc1", ""),
        ("ours/1.10 python/3.13", ""),
        ("ours/2", ""),
        ("other/2.0", ""),
    ],
)
@pytest.mark.parametrize("agents_only", [False, True])
def test_a_listed_program(agent: str, minimum: str, agents_only: bool) -> None:
    found = too_old(agent, ServiceSettings(agents=LISTED, agents_only=agents_only))
    assert (found.minimum if found else "") == minimum
    if found:
        assert found.agent == agent
        assert f"install {minimum} or newer" in found.text


@pytest.mark.parametrize("agent", [None, "", "ours", "ours/", "ours/new", "ours /1.3", " ours/1.3", "third/9", "/1"])
def test_one_that_is_not_listed(agent: str | None) -> None:
    assert too_old(agent, ServiceSettings()) is None
    assert too_old(agent, ServiceSettings(agents=LISTED)) is None
    found = too_old(agent, ServiceSettings(agents=LISTED, agents_only=True))
    assert found is not None
    assert (found.agent, found.minimum) == (agent, None)
    assert "use other from 2 on, ours from 1.2.10 on" in found.text
    assert too_old(agent, ServiceSettings(agents_only=True)) is not None
