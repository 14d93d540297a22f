"""The volunteer's identity: a client id, and the secret that proves it."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from coordinator.client.file_lock import BINARY
from coordinator.errors import ConfigError
from coordinator.user_folder import user_folder
from coordinator.wire.frames import NAME_PATTERN, Name

_SECRET_BYTES = 32


class ClientIdentity(msgspec.Struct, frozen=True):
    """A client id and its secret: 64 hexadecimal digits, made once.  Everyone who has the secret is this client."""

    client_id: Name
    secret: Annotated[str, msgspec.Meta(min_length=32, max_length=256)]

    def __repr__(self) -> str:
        return f"ClientIdentity({self.client_id!r})"  # secrets do not belong in logs


def default_folder() -> Path:
    """Return the per-user folder that clients keep their files in by default.

    Raises:
        ConfigError: this account has no home folder.
    """
    return user_folder("--data DIR") / "client"


def load_identity(folder: Path, client_id: str | None = None) -> ClientIdentity:
    """Load the identity kept in `folder`; make it on the first call.

    Without a `client_id` it is the folder's default one, whose id is drawn at random once.

    Raises:
        ConfigError: the id is not well formed, or the folder or file cannot be used.
    """
    if client_id is not None and not re.fullmatch(NAME_PATTERN, client_id):
        raise ConfigError(f"A client id is 1 to 64 of A-Z a-z 0-9 _ . -, which {client_id!r} is not.")
    path = folder / "default.json" if client_id is None else folder / "clients" / f"{client_id}.json"

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            name = client_id or f"volunteer-{secrets.token_hex(4)}"
            _create(path, ClientIdentity(name, secrets.token_hex(_SECRET_BYTES)))
        identity = msgspec.json.decode(path.read_bytes(), type=ClientIdentity)
    except OSError as failure:
        raise ConfigError(f"The identity file {path} cannot be used: {failure.strerror}.") from failure
    except msgspec.MsgspecError as failure:
        raise ConfigError(f"The identity file {path} is damaged: {failure}.") from failure

    if client_id not in (None, identity.client_id):
        raise ConfigError(f"The identity file {path} is of {identity.client_id!r}, not of {client_id!r}.")
    return identity


def _create(path: Path, identity: ClientIdentity) -> None:
    """Write the file whole or not at all; if two processes do so at once, the first one's file stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    try:
        os.write(file, msgspec.json.encode(identity) + b"\n")
        os.fsync(file)
    finally:
        os.close(file)

    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links, as memory cards have
        if not path.exists():
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
