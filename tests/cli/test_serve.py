"""`serve` and `config`: every setting is a flag."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.cli.serve import greet
from coordinator.config import RELOADED, Settings
from coordinator.errors import UnknownSchema
from tests.cli.conftest import Run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the app was run with."""
    seen: list[Settings] = []
    processes = types.ModuleType("coordinator.processes")

    def run(settings: Settings, opened: Callable[[Settings, int], None]) -> int:
        seen.append(settings)
        assert opened is greet
        if settings.node_name == "too-new":
            raise UnknownSchema("The database was made by a newer version.")
        return 0

    processes.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coordinator.processes", processes)
    monkeypatch.setattr("coordinator.processes", processes, raising=False)
    return seen


@pytest.mark.parametrize("command", ["serve", "config"])
def test_help_lists_all_settings_with_their_defaults(run: Run, command: str) -> None:
    shown = " ".join(run(command, "--help").stdout.replace("│", " ").split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"Default: {field.default}." in shown
    assert "--config" in shown
    assert shown.count("Read anew on SIGHUP.") == len(RELOADED)


def test_flags_become_settings(run: Run, served: list[Settings], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("max_sessions = 7\nport = 1\n")
    done = run(
        *("serve", "--config", str(file), "--port", "0", "--ops-port", "0", "--data", str(tmp_path)),
        *("--allowed-origins", "https://a.org,https://b.org", "--allowed-origins", "https://c.org"),
        *("--plaintext", "--host", "0.0.0.0", "--processes", "2"),
    )
    assert done.exit_code == 0, done.output
    (settings,) = served
    assert (settings.port, settings.max_sessions, settings.processes) == (0, 7, 2)
    assert settings.allowed_origins == ("https://a.org", "https://b.org", "https://c.org")
    assert settings.plaintext
    assert settings.registration == "token"


def test_a_wrong_setting_is_2_in_one_sentence(run: Run, served: list[Settings]) -> None:
    done = run("serve", "--port", "99999")
    assert done.exit_code == 2
    assert done.stderr == "coordinator: port: expected a whole number from 0 to 65535, not '99999'\n"
    assert served == []


def test_an_unknown_schema_is_1_in_one_sentence(run: Run, served: list[Settings]) -> None:
    done = run("serve", "--node-name", "too-new")
    assert (done.exit_code, done.stderr) == (1, "coordinator: The database was made by a newer version.\n")


def test_config_shows_what_is_in_force_without_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_DATABASE", "postgresql://me:geheim@db/x")
    done = run("config", "--json", "--port", "99")
    shown = json.loads(done.stdout)
    assert shown.keys() == Settings.model_fields.keys()
    assert (shown["port"], shown["database"]) == (99, "postgresql://me:***@db/x")
    for_people = run("config").stdout
    assert "geheim" not in for_people
    assert all(name in for_people for name in shown)


def test_a_terminal_is_told_where_dashboard_and_token_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path / "my data", port=8765)
    greet(settings, 8765)
    assert capsys.readouterr().out == ""

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    greet(settings, 7000)
    assert capsys.readouterr().out == (
        "dashboard  http://127.0.0.1:7000/\n"
        f"token      {tmp_path}/my data/admin-token (an admin's; commands with the same --data find it)\n"
        f"next       coordinator item import FILE --service dm_check --data '{tmp_path}/my data', "
        "and coordinator work --help\n"
    )
    greet(Settings(database="postgresql://me@db/x", data=tmp_path), 7000)
    assert "token      coordinator token issue --database DSN --role admin --label me\n" in capsys.readouterr().out


def test_the_log_is_json_but_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().log_format == "json"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert Settings().log_format == "console"
    assert Settings(log_format="json").log_format == "json"
