"""A fresh Debian becomes a coordinator by the commands of `deploy/`, as they stand there."""

from __future__ import annotations

import pytest

from tests.e2e.fresh_machine import STEPS, play
from tests.e2e.machine import NoMachine
from tests.needed import program


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_fresh_debian_becomes_a_coordinator() -> None:
    program("caddy", "caddy")
    program("prometheus", "prometheus")
    program("systemd-nspawn", "systemd-container")
    try:
        assert len(play()) == len(STEPS)
    except NoMachine as reason:  # a container, for instance, may not have others in it
        pytest.skip(str(reason))
