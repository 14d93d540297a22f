"""The file in the data folder by which commands on the same machine find the server.  `coordinator/cli/access.py`"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator

import structlog

from coordinator.config import Settings
from coordinator.embedded.folder import make_root

log = structlog.get_logger()


@contextlib.contextmanager
def address_file(settings: Settings, port: int) -> Iterator[None]:
    """Write the address of a server that listens on `port` into its data folder, and take it away at the end.

    Where that cannot be done, the server works all the same: it is in the log, and commands need `--server`.
    """
    path, address = settings.address_file, f"{url_here(settings, port)}\n"
    try:
        make_root(settings.data)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(address, encoding="ascii")
        draft.replace(path)  # nobody reads half of it
    except (OSError, UnicodeError) as failure:
        log.warning("the address is not written", file=str(path), reason=str(failure))

    try:
        yield
    finally:
        # Another server with the same folder may have written its own meanwhile.
        with contextlib.suppress(OSError, UnicodeError):
            if path.read_text(encoding="ascii") == address:
                path.unlink()


def url_here(settings: Settings, port: int) -> str:
    """Return the address for programs of this machine: who listens everywhere listens on loopback, too."""
    host = settings.host.strip("[]")
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(host)
        if ip.is_unspecified:
            host = "127.0.0.1" if ip.version == 4 else "::1"
    return f"{'wss' if settings.tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"
