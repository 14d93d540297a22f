"""Settings: where each comes from, what it may be, what is said when it may not."""

from __future__ import annotations

import pickle
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.config import Settings, default_data_folder, is_loopback
from coordinator.credentials import hash_secret, hash_token, make_token, same
from coordinator.errors import ConfigError
from coordinator.setting_values import mask

DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 8765,
    "ops_host": "127.0.0.1",
    "ops_port": 8766,
    "database": None,
    "data": default_data_folder(),
    "processes": 1,
    "registration": "open",
    "viewers": "open",
    "project": "",
    "allowed_origins": (),
    "trusted_proxies": (),
    "allowed_hosts": (),
    "tls_cert": None,
    "tls_key": None,
    "plaintext": False,
    "hello_timeout": 5,
    "ping_interval": 20,
    "ping_timeout": 20,
    "reconnect_window": 60,
    "recollect_window": 120,
    "drain_grace": 30,
    "node_lease": 15,
    "max_sessions": 20_000,
    "connections_per_address": 1_000,
    "messages_per_minute": 60_000,
    "registrations_per_minute": 600,
    "max_message_bytes": 1 << 20,
    "key_form": None,
    "activity_retention": 400,
    "log_format": "json",
    "log_level": "info",
}

TEXTS: dict[str, tuple[str, str, str, str]] = {
    "host": ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"),
    "port": ("1", "2", "3", "4"),
    "ops_host": ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"),
    "ops_port": ("1", "2", "3", "4"),
    "database": ("postgresql://a/x", "postgresql://b/x", "postgres://c/x", "postgresql://d/x"),
    "data": ("/a", "/b", "/c", "/d"),
    "key_form": ("exact", "handle", "exact", "handle"),
    "processes": ("1", "2", "3", "4"),
    "node_name": ("a", "b", "c", "d"),
    "registration": ("closed", "token", "open", "token"),
    "viewers": ("token", "open", "token", "open"),
    "allowed_origins": ("http://a", "http://b", "http://c", "http://d"),
    "trusted_proxies": ("10.0.0.1/32", "10.0.0.2/32", "::1/128", "10.0.0.0/8"),
    "plaintext": ("true", "false", "yes", "off"),
    "log_format": ("console", "json", "console", "json"),
    "log_level": ("debug", "warning", "error", "info"),
    "max_message_bytes": ("10000", "20000", "30000", "40000"),
}
"""Values from a flag, the environment, a file and a credential."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for name in [*Settings.model_fields, "token"]:
        monkeypatch.delenv(f"COORDINATOR_{name.upper()}", raising=False)


def said(settings: Settings, name: str) -> str:
    value = settings.public()[name]
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_shown(name: str, text: str) -> str:
    if name == "plaintext":
        return str(text in ("true", "yes"))
    return text


def test_the_defaults() -> None:
    settings = Settings()
    assert settings.model_dump(exclude={"node_name"}) == DEFAULTS
    assert {*DEFAULTS, "node_name"} == Settings.model_fields.keys()
    assert settings.node_name.endswith("-8765")


def test_a_node_on_a_free_port_has_a_name_of_its_own() -> None:
    assert Settings(port=0).node_name != Settings(port=0).node_name


@pytest.mark.parametrize("name", sorted(DEFAULTS.keys() - {"tls_cert", "tls_key"} | {"node_name"}))
def test_flag_then_environment_then_file_then_credential(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flag, environment, file, credential = TEXTS.get(name, ("5", "6", "7", "8"))
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / name).write_text(f"{credential}\n")
    config = tmp_path / "c.toml"
    config.write_text(f'{name} = "{file}"\n')

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert said(Settings(), name) == as_shown(name, credential)
    assert said(Settings(config=config), name) == as_shown(name, file)
    monkeypatch.setenv(f"COORDINATOR_{name.upper()}", environment)
    assert said(Settings(config=config), name) == as_shown(name, environment)
    assert said(Settings(config=config, **{name: flag}), name) == as_shown(name, flag)


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_PORT", "")
    assert Settings().port == 8765


def test_a_flag_may_take_a_database_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_DATABASE", "postgresql://a/x")
    assert Settings(database=None).database is None


def test_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDINATOR_ALLOWED_ORIGINS", "https://A.example.org, http://localhost:3000/")
    monkeypatch.setenv("COORDINATOR_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    settings = Settings()
    assert settings.allowed_origins == ("https://a.example.org", "http://localhost:3000")
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    monkeypatch.delenv("COORDINATOR_ALLOWED_ORIGINS")
    config = tmp_path / "c.toml"
    config.write_text('allowed_origins = ["https://a", "https://b"]\n')
    assert Settings(config=config).allowed_origins == ("https://a", "https://b")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": 65536}, "port: expected a whole number from 0 to 65535, not 65536"),
        ({"port": "x"}, "port: expected a whole number from 0 to 65535, not 'x'"),
        ({"ops_port": -1}, "ops_port: expected a whole number from 0 to 65535, not -1"),
        ({"ping_interval": 0}, "ping_interval: expected seconds, a number from 0.1 to 3600, not 0"),
        ({"ping_interval": "nan"}, "ping_interval: expected seconds, a number from 0.1 to 3600, not 'nan'"),
        ({"registration": "shut"}, "registration: expected one of open, token, closed, not 'shut'"),
        ({"viewers": "closed"}, "viewers: expected one of open, token, not 'closed'"),
        ({"node_name": "a b"}, "node_name: expected 1 to 64 of the characters A-Z a-z 0-9 _ . -, not 'a b'"),
        ({"max_message_bytes": 1}, "max_message_bytes: expected a whole number from 4096 to 67108864, not 1"),
        ({"trusted_proxies": "x"}, "trusted_proxies: expected addresses or networks like 10.0.0.0/8"),
        ({"allowed_origins": "*"}, "allowed_origins: expected origins like https://example.org"),
        ({"allowed_origins": "https://a/b"}, "allowed_origins: expected origins like https://example.org"),
        ({"log_level": "loud"}, "log_level: expected one of debug, info, warning, error, not 'loud'"),
        ({"plaintext": "maybe"}, "plaintext: expected true or false, not 'maybe'"),
        ({"prot": 1}, "prot: there is no such setting"),
        ({"tls_cert": "/c"}, "tls_key: expected a file, since tls_cert is given; TLS needs both"),
        ({"tls_cert": "/c", "tls_key": "/k"}, "tls_cert: expected a file, and there is none at /c"),
        ({"host": "0.0.0.0"}, "host: 0.0.0.0 is beyond loopback, where TLS is expected"),
        ({"port": -1, "max_sessions": 0}, "max_sessions: expected"),
    ],
)
def test_what_is_said_of_a_wrong_one(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_PORT", "x")
    with pytest.raises(ConfigError, match=r"^port \(from COORDINATOR_PORT\): expected a whole number"):
        Settings()


@pytest.mark.parametrize(
    "dsn",
    ["mysql://u:geheim@h/x", "postgres://u:gehe/im@h/x", "postgres://u:geheim#@h", "postgres://[geheim", "geheim"],
)
def test_a_wrong_database_is_not_repeated(dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"database: expected an address like postgresql://") as caught:
        Settings(database=dsn)
    assert "gehe" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("a b", "is not TOML"), (None, "cannot be read")])
def test_a_wrong_file(tmp_path: Path, text: str | None, message: str) -> None:
    config = tmp_path / "c.toml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Settings(config=config)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False),
        ("localhost.example.org", False), ("", False),
    ],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if host:
        settings = Settings(host=host, plaintext=True)
        assert settings.registration == settings.viewers == ("open" if loopback else "token")
        assert Settings(host=host, plaintext=True, registration="closed").registration == "closed"


def test_tls_allows_to_listen_everywhere(tmp_path: Path) -> None:
    cert, key = tmp_path / "c", tmp_path / "k"
    cert.touch()
    key.touch()
    settings = Settings(host="0.0.0.0", tls_cert=cert, tls_key=key)
    assert settings.tls
    assert settings.registration == "token"


def test_a_credential_of_tls_is_the_file_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tls_cert", "tls_key"):
        (tmp_path / name).write_text("-----BEGIN")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Settings().tls_key == tmp_path / "tls_key"


def test_a_missing_credentials_folder_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nowhere")
    assert Settings().database is None


@pytest.mark.parametrize(
    ("dsn", "masked"),
    [
        ("postgresql://me:p%40ss@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgres://me:geheim@a:1,b:2/x?target_session_attrs=read-write",
         "postgres://me:***@a:1,b:2/x?target_session_attrs=read-write"),
        ("postgresql:///x?host=/tmp/a&password=geheim", "postgresql:///x?host=/tmp/a&password=***"),
    ],
)  # fmt: skip
def test_masking(dsn: str, masked: str) -> None:
    assert mask(dsn) == masked
    settings = Settings(database=dsn)
    assert settings.database == dsn
    assert settings.public()["database"] == masked
    assert "geheim" not in repr(settings) + str(settings)


def test_settings_are_frozen_and_go_to_other_processes() -> None:
    settings = Settings(port=0, trusted_proxies="10.0.0.0/8")
    with pytest.raises(ValidationError):
        settings.port = 1
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_tokens_and_secrets() -> None:
    one, other = make_token(), make_token()
    assert len(one.token) == 43
    assert len(one.token_id) == 16
    assert one.hash == hash_token(one.token) != other.hash
    assert len(hash_secret("s")) == 32
    assert not same(hash_secret(one.token), hash_token(one.token))
    assert same(hash_secret("s"), hash_secret("s"))
