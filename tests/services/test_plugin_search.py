"""Plugins that are installed while nodes run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Server
from tests.serve.tools import eventually

PLUGIN = """
    import msgspec
    from coordinator.services import Plugin

    class LateResult(msgspec.Struct, forbid_unknown_fields=True):
        good: bool

    class Late(Plugin):
        name = "late"
        title = "Late check"
        Result = LateResult
    """


class Installed:
    """A folder of installed packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, entry_point: str, text: str) -> None:
        """Put a module and its metadata there, as pip does."""
        (self.folder / f"{name}.py").write_text(dedent(text))
        metadata = self.folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[coordinator.services]\n{entry_point}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield Installed(folder)
    for name in ("late", "broken", "link_alive"):
        sys.modules.pop(name, None)


async def test_a_plugin_is_found_without_a_restart(installed: Installed, server: Server, admin: Admin) -> None:
    before = {row["plugin"] for row in (await admin.ok("service.plugins"))["rows"]}
    refused = await admin.ask_for("service.add", service="mine", plugin="late")
    assert (refused["code"], refused["detail"]) == ("not_found", {"path": "$.plugin"})
    assert "pip install the package into the same environment" in refused["message"]

    installed.install("late", "late = late:Late", PLUGIN)
    assert (await admin.ok("service.add", service="mine", plugin="late"))["title"] == "Late check"
    assert {row["plugin"] for row in (await admin.ok("service.plugins"))["rows"]} == before | {"late"}

    await admin.ok("item.add", items=[{"key": "ada"}], services=["mine"])
    peer = await server.volunteer("ada")
    await peer.ok("join", service="mine")
    bucket = await peer.bucket("mine")
    results = [{"item": bucket["items"][0]["item"], "good": True}]
    answer = await peer.ask_for(
        "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=True
    )
    assert answer["stored"] == 1


async def test_the_list_finds_it_and_so_does_another_node(
    installed: Installed, server: Server, admin: Admin, start_server: StartServer
) -> None:
    other = await start_server(node_name="other")
    installed.install("late", "late = late:Late", PLUGIN)
    assert "late" in {row["plugin"] for row in (await admin.ok("service.plugins"))["rows"]}
    await admin.ok("service.add", service="mine", plugin="late")
    peer = await other.volunteer("bob")

    async def joined() -> bool:
        return bool((await peer.ask_for("join", service="mine"))["type"] == "joined")

    await eventually(joined, "the other node does not find the plugin")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module", "cannot be loaded: No module named 'no_such_module'"),
        ("raise SystemError('no')", "cannot be loaded: no"),
        ("Broken = 3", "does not derive from Plugin"),
    ],
)
async def test_one_that_cannot_be_loaded_says_why_and_harms_nothing(
    installed: Installed, server: Server, admin: Admin, text: str, why: str
) -> None:
    installed.install("broken", "broken = broken:Broken", text)
    installed.install("late", "late = late:Late", PLUGIN)
    refused = await admin.ask_for("service.add", service="mine", plugin="broken")
    assert refused["code"] == "not_found"
    assert why in refused["message"]
    await admin.ok("service.add", service="mine", plugin="late")


async def test_one_with_tables_is_found_once_they_are_there(
    server: Server, admin: Admin, example: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.syspath_prepend(example)
    refused = await admin.ask_for("service.add", service="links", plugin="link_alive")
    assert "The database lacks 2 migrations of the plugin link_alive" in refused["message"]
    assert "coordinator db migrate" in refused["message"]
    await migrate.migrate(database, tables_of(load_plugins()))
    await admin.ok("service.add", service="links", plugin="link_alive")
    for name in [name for name in sys.modules if name.split(".")[0] == "link_alive"]:
        del sys.modules[name]
