"""Fuzz what reads bytes, guided by coverage: `python -m tests.fuzz.by_coverage [TARGET …] [--seconds S]`.

It needs atheris (`pip install atheris`).  Each target runs in a process of its own and ends at the first input that
raises what it should not, takes ten seconds or 2 GiB.  What was found is kept in the folder `--corpus`, from which
the next run goes on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader

from coordinator.errors import PeerError
from coordinator.keys import read_key
from coordinator.printable import printable, printable_json
from coordinator.serve import addresses
from coordinator.services.dm_check import DmCheck
from coordinator.services.follow.checks import FollowerCheck
from coordinator.services.generic import Generic, GenericSettings
from coordinator.wire import admin, client, stats
from coordinator.wire.codec import Codec, Undecodable, encode, error_frame
from coordinator.wire.frames import Request

CODECS: list[Codec[Request]] = [
    Codec(*client.ANSWERS, deep=client.Submit),
    Codec(*admin.ANSWERS),
    Codec(*stats.ANSWERS),
]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"pattern": "^(a+)+$"}, "b": {"items": {"$ref": "#"}, "uniqueItems": True}},
}

READERS = [
    DmCheck("dm", DmCheck.Settings()).reader(),
    FollowerCheck("follow", FollowerCheck.Settings()).reader(),
    Generic("own", GenericSettings(result_schema=SCHEMA)).reader(),
]


def frame(data: bytes) -> None:
    """A frame of any channel is a message that stays what it is, or is refused."""
    text = data.decode("utf-8", "surrogateescape")
    for codec in CODECS:
        try:
            message = codec.decode(text)
        except Undecodable as refusal:
            json.loads(error_frame(refusal.error, refusal.ref))
        else:
            assert codec.decode(encode(message).decode()) == message


def results(data: bytes) -> None:
    """The results of a submit are read or refused, whatever the service; they are part of a text."""
    data = data.decode("utf-8", "ignore").encode()
    for reader in READERS:
        with suppress(PeerError):
            read = reader.read(data)
            for _, value in (*read.rows, *read.parts):
                msgspec.json.decode(value)


def header(data: bytes) -> None:
    """Headers of a handshake are read, whatever a stranger writes there."""
    first, _, second = data.decode("latin-1").partition("\n")
    try:
        headers = Headers([("Forwarded", first), ("X-Forwarded-For", second), ("X-Forwarded-Host", first)])
    except InvalidHeader:
        return  # the library has refused it before
    addresses.client_block("127.0.0.1", addresses.forwarded_for(headers), (ip_network("127.0.0.0/8"),))
    addresses.forwarded_host(headers)
    addresses.is_forwarded(headers)
    addresses.is_same_origin(first, second)


def key(data: bytes) -> None:
    """A key is one that reads as itself, or is refused; shown text has no control characters."""
    text = data.decode("utf-8", "replace")
    with suppress(ValueError):
        shown, _ = read_key(text, "handle")
        assert read_key(shown, "handle")[0] == shown
    assert printable(text).isprintable() or "\x1b" not in printable(text)
    assert "\x1b" not in printable_json(text)


TARGETS: Mapping[str, Callable[[bytes], None]] = {each.__name__: each for each in (frame, results, header, key)}

SEEDS: Mapping[str, list[bytes]] = {
    "frame": [b'{"type":"hello","ref":1,"protocol":1}', b'{"type":"submit","results":[{"item":1,"dm":"DM"}]}'],
    "results": [b'[{"item":1,"dm":"DM"}]', b'[{"item":1,"accounts":[{"key":"x"}]}]', b'[{"item":1,"a":"aa","b":[1]}]'],
    "header": [b'for="[::1]:80";host=a, for=1.2.3.4\n1.2.3.4:5, ::ffff:1.2.3.4', b"https://a.example:443\na.example"],
    "key": [b"@Handle_1", b"https://www.x.com/name?x=1", "\u200be\u0301".encode()],
}


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    atheris = importlib.import_module("atheris")
    atheris.instrument_all()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed{number}").write_bytes(seed)
    bounds = [
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *bounds, f"-artifact_prefix={corpus.parent}/", str(corpus)], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets one after the other; returns the first exit code that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default 600)")
    parser.add_argument(
        "--corpus", type=Path, default=Path(tempfile.gettempdir()) / "coordinator-corpus", help="folder"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    for target in chosen.targets or TARGETS:
        if chosen.here:
            fuzz(target, chosen.seconds, chosen.corpus / target)
        options = ["--here", "--seconds", str(chosen.seconds), "--corpus", str(chosen.corpus)]
        code = subprocess.run([sys.executable, "-m", __spec__.name, target, *options]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
