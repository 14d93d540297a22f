"""The settings of a node: one frozen object, read once.

A setting is taken from the first of these that has it: a flag (an argument of `Settings`), the environment
(COORDINATOR_<NAME>), the TOML file, a file of that name in systemd's credentials folder, the default.  No other module
of the server reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from coordinator.errors import ConfigError
from coordinator.keys import KeyForm
from coordinator.setting_values import (
    Network,
    absolute,
    database_dsn,
    host_name,
    lower,
    mask,
    network,
    origin,
    project_name,
    split_list,
)
from coordinator.user_folder import user_folder

PREFIX = "COORDINATOR_"

RELOADED = ("registration", "viewers", "project", "allowed_origins", "allowed_hosts", "drain_grace")
"""The settings that a node takes over while it runs, on SIGHUP; all others need a new start."""

Access = Literal["open", "token", "closed"]


def _setting(default: Any, help_text: str, expected: str, **more: Any) -> Any:
    """Define a setting: its default (or a function that makes it), its line of help, and the words of an error."""
    extra: dict[str, Any] = {"expected": expected}
    if callable(default):
        return Field(default_factory=default, description=help_text, json_schema_extra=extra, **more)
    return Field(default=default, description=help_text, json_schema_extra=extra, **more)


def _whole(default: int, least: int, most: int, help_text: str) -> Any:
    return _setting(default, help_text, f"a whole number from {least} to {most}", ge=least, le=most)


def _seconds(default: float, least: float, most: float, help_text: str) -> Any:
    expected = f"seconds, a number from {least:g} to {most:g}"
    return _setting(default, f"{help_text}; seconds.", expected, ge=least, le=most, allow_inf_nan=False)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a listener on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def default_data_folder() -> Path:
    """Return the folder of the data if the settings name none.

    Raises:
        NoHomeFolder: there is no such folder, since this account has no home.
    """
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return Path("/var/lib/coordinator") if is_root else user_folder("--data or COORDINATOR_DATA")


@dataclass(frozen=True, slots=True)
class Supervision:
    """How a service manager watches over this process: where it listens, and after how many seconds it ends it."""

    socket: str | None = None
    watchdog: float | None = None


def supervision() -> Supervision:
    """Return how systemd watches over this process, by the variables that it sets for its services."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    watchdog = int(microseconds) / 1e6 if meant and microseconds.isdecimal() and int(microseconds) else None
    return Supervision(os.environ.get("NOTIFY_SOCKET") or None, watchdog)


def _own_name(so_far: dict[str, Any]) -> str:
    """Return host name and port: two nodes of one machine differ, and a restarted node keeps its name."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:48] or "node"
    return f"{host}-{so_far.get('port') or secrets.token_hex(3)}"


def _only_from_here(host: str, trusted_proxies: object) -> bool:
    """Tell whether all peers are programs of this machine: it listens on loopback, and knows of no proxy."""
    return is_loopback(host) and not trusted_proxies


def _open_here(so_far: dict[str, Any]) -> Access:
    return "open" if _only_from_here(so_far.get("host", ""), so_far.get("trusted_proxies")) else "token"


def _log_format_here() -> Literal["json", "console"]:
    """Return the form of the log for whoever reads it: a person at a terminal, or a program."""
    return "console" if sys.stderr is not None and sys.stderr.isatty() else "json"


class _CredentialsFolder(PydanticBaseSettingsSource):
    """Files named as settings, as systemd's LoadCredential= leaves them in $CREDENTIALS_DIRECTORY.

    A file contains the setting's value; files named `tls_cert` and `tls_key` are the certificate and the key.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        path = Path(folder, field_name) if folder else None
        if path is None or not path.is_file():
            return None, field_name, False
        if field_name in ("tls_cert", "tls_key"):
            return path, field_name, False
        try:
            return path.read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeError) as failure:
            raise ConfigError(f"{field_name}: the credential {path} cannot be read: {failure}") from failure

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in values.items() if value not in (None, "")}


class Settings(BaseSettings):
    """All settings of a node.

    Raises:
        ConfigError: a setting is wrong; the message names it, its source and the expected value.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_ignore_empty=True, validate_default=False
    )

    host: str = _setting("127.0.0.1", "Address to listen on.", "an address or a host name", min_length=1)
    port: int = _whole(8765, 0, 65535, "Port of the three channels and the dashboard; 0 takes a free one.")
    ops_host: str = _setting(
        "127.0.0.1", "Address of the operations listener (metrics, health).", "an address or a host name",
        min_length=1,
    )  # fmt: skip
    ops_port: int = _whole(8766, 0, 65535, "Port of the operations listener; 0 takes a free one.")
    database: Annotated[str, AfterValidator(database_dsn)] | None = _setting(
        None,
        "Postgres to use, postgresql://user@host/name; unless given, one is started and owned in --data.",
        "an address like postgresql://user@host:5432/name",
        repr=False,
    )
    data: Annotated[Path, AfterValidator(absolute)] = _setting(
        default_data_folder, "Folder of the embedded Postgres and the admin token.", "a folder"
    )
    key_form: KeyForm | None = _setting(
        None,
        "How a new database compares keys: handle (accounts of X, whatever their case) or exact; as it does, if it is "
        "there. Unless given, handle.",
        "one of handle, exact",
    )
    processes: int = _whole(1, 1, 256, "How many processes serve.")
    node_name: str = _setting(
        _own_name, "Name of this node; one database must not have two of a name.",
        "1 to 64 of the characters A-Z a-z 0-9 _ . -", pattern=r"^[A-Za-z0-9_.-]{1,64}$",
    )  # fmt: skip
    trusted_proxies: Annotated[
        tuple[Annotated[Network, BeforeValidator(network)], ...], NoDecode, BeforeValidator(split_list)
    ] = _setting(
        (), "Addresses of proxies whose X-Forwarded-For is believed, separated by commas.",
        "addresses or networks like 10.0.0.0/8, separated by commas",
    )  # fmt: skip
    registration: Access = _setting(
        _open_here, "Who may register: everyone, who has an enrolment token, nobody new.",
        "one of open, token, closed",
    )  # fmt: skip
    viewers: Literal["open", "token"] = _setting(
        _open_here, "Who may see the dashboard: everyone, or who has a token.", "one of open, token"
    )
    project: Annotated[str, AfterValidator(project_name)] = _setting(
        "", "What people call the project: on the public page and its badge.",
        "one line of up to 80 printable characters",
    )  # fmt: skip
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(origin)], ...], NoDecode, BeforeValidator(split_list)
    ] = _setting(
        (), "Origins of web pages that may connect, separated by commas.",
        "origins like https://example.org, separated by commas",
    )  # fmt: skip
    allowed_hosts: Annotated[
        tuple[Annotated[str, AfterValidator(host_name)], ...], NoDecode, BeforeValidator(split_list)
    ] = _setting(
        (), "Names of this node that a request may bear in its Host header, beside localhost and addresses.",
        "host names like work.example.org, separated by commas",
    )  # fmt: skip
    tls_cert: Annotated[Path, AfterValidator(absolute)] | None = _setting(
        None, "Certificate chain in PEM; with --tls-key, the port speaks TLS. Read anew once replaced.", "a file"
    )
    tls_key: Annotated[Path, AfterValidator(absolute)] | None = _setting(None, "Private key in PEM.", "a file")
    plaintext: bool = _setting(
        False, "Listen beyond loopback without TLS, for use behind a proxy that does TLS.", "true or false"
    )
    hello_timeout: float = _seconds(5.0, 0.1, 300, "How long a connection may take to say hello")
    ping_interval: float = _seconds(20.0, 0.1, 3600, "How often a peer is pinged")
    ping_timeout: float = _seconds(20.0, 0.1, 3600, "How long a peer may take to answer a ping")
    reconnect_window: float = _seconds(60.0, 0, 86_400, "How long buckets are kept for clients that a drain cut off")
    recollect_window: float = _seconds(120.0, 0, 86_400, "How long a client that was cut off may have its buckets back")
    drain_grace: float = _seconds(30.0, 0, 3600, "How long a drain waits for submits")
    node_lease: float = _seconds(15.0, 1, 600, "How long a node that says nothing counts as alive")
    max_sessions: int = _whole(20_000, 1, 1_000_000, "Sessions on this node.")
    connections_per_address: int = _whole(1000, 1, 1_000_000, "Connections from one address.")
    messages_per_minute: int = _whole(60_000, 1, 100_000_000, "Messages on one connection.")
    registrations_per_minute: int = _whole(600, 1, 1_000_000, "Registrations from one address.")
    max_message_bytes: int = _whole(1 << 20, 4096, 64 << 20, "Largest frame, in bytes.")
    activity_retention: int = _whole(400, 1, 36_500, "How long the activity log is kept, in whole months; days.")
    log_format: Literal["json", "console"] = _setting(
        _log_format_here, "How the log is written.", "one of json, console"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = _setting(
        "info", "The least of what is logged.", "one of debug, info, warning, error"
    )

    _sources: tuple[Path | None, dict[str, Any]] = PrivateAttr()
    """The TOML file and the flags that it was read from."""
    _read: dict[str, Any] = PrivateAttr()
    """The values that those sources gave, whatever has become of them in a copy."""

    def __init__(self, config: Path | None = None, **flags: Any) -> None:
        try:
            super().__init__(config=config, **flags)
        except ValidationError as failure:
            # A default that cannot be made because another setting is wrong is not reported.
            faults = [fault for fault in failure.errors() if fault["type"] != "default_factory_not_called"]
            raise ConfigError("; ".join(_explain(fault, flags) for fault in faults)) from None
        self._sources = config, flags
        self._read = {name: getattr(self, name) for name in self.model_fields_set}

    def reread(self) -> tuple[Settings, list[str]]:
        """Read the same sources again.

        Returns these settings with what they give now for those of `RELOADED`, and the names of others that have
        changed there.

        Raises:
            ConfigError: as `Settings`.
        """
        config, flags = self._sources
        new = Settings(config=config, **flags)

        taken = self.model_copy(update={name: getattr(new, name) for name in RELOADED})
        # So that a default stays one: `access_to` has to know.
        given = (self.model_fields_set - set(RELOADED)) | (new.model_fields_set & set(RELOADED))
        object.__setattr__(taken, "__pydantic_fields_set__", given)

        names = (self._read.keys() | new._read.keys()) - set(RELOADED)
        return taken, sorted(name for name in names if self._read.get(name) != new._read.get(name))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(init_settings, InitSettingsSource)
        config = init_settings.init_kwargs.pop("config", None)
        return (
            init_settings,
            EnvSettingsSource(settings_cls),
            InitSettingsSource(settings_cls, _read_toml(config) if config else {}),
            _CredentialsFolder(settings_cls),
        )

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"{missing}: expected a file, since {given} is given; TLS needs both")
        for name, path in (("tls_cert", self.tls_cert), ("tls_key", self.tls_key)):
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: expected a file, and there is none at {path}")
        if not (self.tls or self.plaintext or is_loopback(self.host)):
            raise ValueError(
                f"host: {self.host} is beyond loopback, where TLS is expected: give tls_cert and tls_key, "
                "or plaintext if a proxy in front does TLS"
            )
        return self

    @property
    def tls(self) -> bool:
        """Whether the port speaks TLS."""
        return self.tls_cert is not None

    @property
    def address_file(self) -> Path:
        """The file in which the address of a running server stands."""
        return self.data / "address"

    @property
    def only_from_here(self) -> bool:
        """Whether all peers are programs of this machine: it listens on loopback, and knows of no proxy."""
        return _only_from_here(self.host, self.trusted_proxies)

    def access_to(self, setting: Literal["registration", "viewers"], *, behind_proxy: bool) -> Access:
        """Return a setting as it holds for one connection.

        Open by default means open to this machine; what a proxy passes on comes from elsewhere.
        """
        access: Access = getattr(self, setting)
        by_default = setting not in self.model_fields_set
        return "token" if access == "open" and by_default and behind_proxy else access

    def public(self) -> dict[str, str | int | float | bool | list[str] | None]:
        """Return every setting in force, with secrets masked, so that all of it may be shown."""
        shown: dict[str, str | int | float | bool | list[str] | None] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, tuple):
                shown[name] = [str(part) for part in value]
            else:
                shown[name] = str(value) if isinstance(value, Path) else value
        if self.database is not None:
            shown["database"] = mask(self.database)
        return shown


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise ConfigError(f"config: {path} cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeError) as failure:
        raise ConfigError(f"config: {path} is not TOML: {failure}") from failure


def _explain(fault: Any, flags: dict[str, Any]) -> str:
    """Return the sentence for one of pydantic's errors."""
    if not fault["loc"]:  # of _fit_together: a whole sentence
        return str(fault["ctx"]["error"])
    name = str(fault["loc"][0])
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name}: there is no such setting"
    came = f" (from {PREFIX}{name.upper()})" if name not in flags and _in_environment(name) else ""
    extra = field.json_schema_extra
    expected = extra["expected"] if isinstance(extra, dict) else ""
    # A DSN that does not parse cannot be masked either.
    got = "" if name == "database" else f", not {fault['input']!r}"
    return f"{name}{came}: expected {expected}{got}"


def _in_environment(name: str) -> bool:
    return bool(os.environ.get(f"{PREFIX}{name.upper()}"))
