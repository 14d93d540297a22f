"""The certificate of the port, read anew when its files are replaced.  protocol.md, "Channels" """

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import structlog

from coordinator.config import Settings
from coordinator.errors import ConfigError

log = structlog.get_logger()

CERTIFICATE_LOOK_INTERVAL = 2.0
"""Seconds between two looks at the files; contract: a new certificate is used within 10 s."""


class Certificate:
    """Gives each new connection the certificate that the files hold now; connections that are open keep theirs.

    Renewed files come one after the other: a certificate and a key that do not fit together are not used, and the
    former ones stay until the pair is whole.

    Raises:
        ConfigError: the files cannot be read, or do not fit together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._known = self._content()
        """The content of the files that is in use, or that was refused and told."""
        self._refused: bytes | None = None
        """The content that could not be used at the last look."""
        self.context = self._current = self._load()
        """The context to listen with; it gives way to the current one in each handshake."""
        # Not loaded anew into one context: half of a bad pair would stay in it.
        self.context.sni_callback = self._choose

    async def run(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(CERTIFICATE_LOOK_INTERVAL)
            self.look()

    def look(self) -> None:
        """Use what the files hold now, if it has changed; what cannot be used is told once, at the second look."""
        content = self._content()
        if content == self._known:
            return

        try:
            self._current = self._load()
        except ConfigError as failure:
            if content == self._refused:
                log.warning("the new certificate cannot be used, the former one stays", reason=str(failure))
                self._known = content
            self._refused = content
            return
        self._known = content
        log.info("a new certificate is used", file=str(self._files[0]))

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, first: ssl.SSLContext) -> None:
        connection.context = self._current

    def _content(self) -> bytes:
        try:
            return b"\n".join(file.read_bytes() for file in self._files)
        except OSError:
            return b""

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as failure:
            raise ConfigError(f"tls_cert, tls_key: cannot be read as a certificate and its key: {failure}") from failure
        return context


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate of the settings; None without one.

    Raises:
        ConfigError: as `Certificate`.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)
