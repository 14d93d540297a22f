"""The files of `deploy/` fit the program: pins with their hashes, and a table of threats whose names are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement

from coordinator.config import Settings
from coordinator.model import ServiceSettings
from coordinator.wire.frames import Close
from coordinator.wire.stats import EventKind
from tests.harness import Server
from tests.serve.test_metrics import scrape

HERE = Path(__file__).parent.parent
PINS = (HERE / "deploy/requirements.txt").read_text()
ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)[^\\\n]*(?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+$", re.MULTILINE
)
PINNED = {entry["name"].lower(): entry for entry in ENTRY.finditer(PINS)}

THREATS = (HERE / "deploy/README.md").read_text().partition("## Threats")[2].partition("## What it is")[0]
SEEN = [row.split("|")[4] for row in THREATS.splitlines() if row.startswith("| ") and not row.startswith("| who |")]
SAID = [row.split("|")[3] for row in THREATS.splitlines() if row.startswith("| ") and not row.startswith("| who |")]


def test_every_pin_has_hashes() -> None:
    names = [line.partition("==")[0] for line in PINS.splitlines() if line and line[0].isalnum()]
    assert len(names) == len(PINNED)
    assert {name.lower() for name in names} == PINNED.keys()


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        wanted = Requirement(line)
        pinned = PINNED[wanted.name.lower()]
        assert wanted.specifier.contains(pinned["version"]), line


async def test_the_metrics_of_the_table_of_threats_are_there(server: Server) -> None:
    page = await scrape(server)
    named = set(re.findall(r"`(coordinator_[a-z_]+)`", "".join(SEEN)))
    assert len(named) > 8
    assert named <= {family.name for family in page.families}


def test_the_events_settings_and_codes_of_the_table_of_threats_are_there() -> None:
    events = {name for cell in SEEN for name in re.findall(r"event `([a-z]+)`", cell)}
    assert events
    assert events <= set(get_args(EventKind))
    known = {*Settings.model_fields, *ServiceSettings.__dataclass_fields__}
    settings = {name for cell in SAID for name in re.findall(r"`([a-z]+_[a-z_]+)`", cell)}
    assert {"hello_timeout", "dead_after"} <= settings
    errors = {"rate_limited", "stale_claim", "not_owner", "unassigned_items"}
    assert settings - errors <= known
    codes = {int(code) for cell in (*SEEN, *SAID) for code in re.findall(r"\b4[0-9]{3}\b", cell)}
    assert codes <= {int(code) for code in Close}


@pytest.mark.parametrize("line", sorted({name for cell in SEEN for name in re.findall(r"lines? `([a-z ]+)`", cell)}))
def test_the_lines_of_the_table_of_threats_are_written(line: str) -> None:
    package = HERE / "coordinator"
    assert any(f'"{line}"' in file.read_text() for file in package.glob("*/*.py"))
