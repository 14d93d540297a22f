"""Tables fit the terminal: held as text at 80 and 120 columns, piped, and with --wide."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from textwrap import dedent
from typing import Any

import pytest

from coordinator.cli import output
from coordinator.cli.output import Output, after_hint
from coordinator.cli.requests import _answer_fields
from coordinator.cli.tables import draw_table
from coordinator.wire.admin import ANSWERS
from coordinator.wire.admin.system import ServiceStats
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import ListedResult
from tests.cli.conftest import Run
from tests.cli.scripted import TOKEN, Scripted


def client(number: int, **more: Any) -> dict[str, Any]:
    services = [{"service": name, "joined": True} for name in ("dm_check", "follower_check")]
    plain = {"state": "active", "deactivated": None, "doing": does("working"), "connected": True}
    name = {"client_id": f"volunteer-{number}", "screen_name": f"Volunteer {number}"}
    return {**name, **plain, "health": "ok", "reason": None, "services": services, **more}


def does(what: str, until: str | None = None) -> dict[str, Any]:
    return {"what": what, "text": "in words", "since": None, "until": until}


CLIENTS = [
    client(1),
    client(
        2,
        client_id="3f8a6f0e-7c4b-4c0e-9a57-3d5d0c9a1b52",
        health="flagged",
        reason="It gave back 4 buckets in a row, and its answers differ from others'.",
    ),
    client(3, doing=does("limited", "2026-01-31T12:00:00.5Z")),
]


def totals(service: str, items: int) -> dict[str, Any]:
    moment = "2026-01-31T12:00:00.123456Z"
    counts = {"waiting": items - 2160, "ready": 1800, "claimed": 360, "dead": 0, "settled": 0, "quarantined": 2}
    buckets = {"ready_buckets": 10, "claimed_buckets": 2, "dead_buckets": 0}
    oldest = [{"priority": 100, "since": moment, "overtaken_until": moment}]
    return {"service": service, "state": "active", "items": items, **counts, **buckets, "oldest": oldest}


STATS = {
    "services": [totals("dm_check", 106_000), totals("follower_check", 1_200_000), totals("following_check", 5000)],
    "database": {
        "statements": [
            {"statement": f"claims.step_{n}", "calls": n, "rows": 10 * n, "milliseconds": n * 1.23456}
            for n in range(45)
        ],
        "pool_waits": 3,
        "pool_waited": 0.0123,
    },
    "key_form": "handle",
}


def shown(columns: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that writes something, and returns what is on standard output and on standard error."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))

    def write(tag: str, answer: Any, *, wide: bool = False) -> tuple[str, str]:
        out = Output(as_json=False, wide=wide, tag=tag)
        if isinstance(answer, list):
            out.rows(answer)
            out.tell_left_out()
        else:
            out.answer(answer)
        said = capsys.readouterr()
        return said.out, said.err

    return write


def test_clients_at_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = shown(80, monkeypatch, capsys)("client.list", CLIENTS)
    assert out == dedent("""\
        client_id                             state   doing    health   reason
        volunteer-1                           active  working  ok
        3f8a6f0e-7c4b-4c0e-9a57-3d5d0c9a1b52  active  working  flagged  It gave back 4 …
        volunteer-3                           active  limited  ok
        """)
    assert err == "Not shown: screen_name, deactivated, connected, services (--wide)\n"


CLIENTS_AT_120 = """\
client_id                             screen_name  state   doing    health   reason
volunteer-1                           Volunteer 1  active  working  ok
3f8a6f0e-7c4b-4c0e-9a57-3d5d0c9a1b52  Volunteer 2  active  working  flagged  It gave back 4 buckets in a row, and its a…
volunteer-3                           Volunteer 3  active  limited  ok
"""


def test_clients_at_120_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = shown(120, monkeypatch, capsys)("client.list", CLIENTS)
    assert out == CLIENTS_AT_120
    assert err == "Not shown: deactivated, connected, services (--wide)\n"


def test_clients_piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = shown(None, monkeypatch, capsys)("client.list", CLIENTS)
    assert max(map(len, out.splitlines())) <= output.PIPED_WIDTH
    assert out.splitlines()[0].split() == [
        *("client_id", "screen_name", "state", "doing", "connected", "health", "reason", "services")
    ]
    assert "dm_check, follower_check" in out
    assert err == "Not shown: deactivated (--wide)\n"


def test_stats_at_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = shown(80, monkeypatch, capsys)("stats", STATS)
    assert out == dedent("""\
        key_form  handle

        services
          service            items  waiting  ready  claimed  dead  settled  quarantined
          dm_check          106000   103840   1800      360     0        0            2
          follower_check   1200000  1197840   1800      360     0        0            2
          following_check     5000     2840   1800      360     0        0            2

        database
          pool_waits   3
          pool_waited  0.012

          statements
            statement       calls  rows  milliseconds
            claims.step_44     44   440        54.321
            claims.step_43     43   430        53.086
            claims.step_42     42   420        51.852
            claims.step_41     41   410        50.617
            claims.step_40     40   400        49.382
        """)
    assert err == (
        "Not shown: state, ready_buckets, claimed_buckets, dead_buckets, oldest, 40 of the statements (--wide)\n"
    )


def test_stats_of_a_hundred_services_still_fit_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services: Any = STATS["services"]
    named = [{**services[0], "service": f"check_{n:03}", "items": n} for n in range(100)]
    out, err = shown(80, monkeypatch, capsys)("stats", {**STATS, "services": named})
    assert [line.split()[0] for line in out.splitlines()[4:10]] == [f"check_{n:03}" for n in range(99, 93, -1)]
    assert len(out.splitlines()) + len(err.splitlines()) <= 24
    assert "94 of the services" in err


def test_wide_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write = shown(80, monkeypatch, capsys)
    out, err = write("client.list", [*CLIENTS, client(4, client_id="x" * 64)], wide=True)
    assert "x" * 64 in out
    assert CLIENTS[1]["reason"] in out
    assert err == ""
    out, err = write("stats", STATS, wide=True)
    assert "2026-01-31T12:00:00.123456Z" in out
    assert all(f"claims.step_{n} " in out for n in range(45))
    assert err == ""


def test_long_ids_are_cut_in_the_middle_and_others_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = shown(80, monkeypatch, capsys)("client.list", [*CLIENTS, client(4, client_id="a" * 32 + "z" * 32)])
    assert re.search(r"^a{17,}…z{17,}  active", out, re.MULTILINE)
    assert re.search(r"^3f8a6f0e-7c4b-4c0e-9a57-3d5d0c9a1b52  +active", out, re.MULTILINE)


ROWS = [
    {
        "item": 10**n,
        "at": "2026-01-31T12:00:00Z",
        "key": f"account_{n}",
        "bucket_id": "3f8a6f0e-7c4b-4c0e-9a57-3d5d0c9a1b52",
        "text": "some words " * n,
        "value": {"dm": "DM", "note": "n" * n},
    }
    for n in range(12)
]


@pytest.mark.parametrize("width", range(36, 200, 7))
def test_no_number_time_or_id_is_ever_broken(width: int) -> None:
    lines, left_out = draw_table(ROWS, width, order=("bucket_id", "key"))
    assert len(lines) == 1 + len(ROWS)
    assert max(len(line.plain) for line in lines) <= width
    for row, line in zip(ROWS, lines[1:], strict=True):
        for name in ("item", "at", "key", "bucket_id"):
            assert name in left_out or str(row[name]) in line.plain.split()
    assert set(lines[0].plain.split()) | set(left_out) == ROWS[0].keys()


def test_in_what_is_shown_of_one_thing_texts_go_on_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = [{"service": "dm_check", "reason": "one two three four five six seven eight nine ten eleven"}]
    out, _ = shown(40, monkeypatch, capsys)("client.show", {"token": "t" * 60, "services": notes})
    assert out == dedent(f"""\
        token  {"t" * 60}

        services
          service   reason
          dm_check  one two three four five six
                    seven eight nine ten eleven
        """)


def test_columns_that_come_first_are_fields_of_their_rows() -> None:
    requests = {tag_of(request): request for request in ANSWERS}
    for tag, names in output.COLUMNS.items():
        fields = set(re.findall(r"\w+", _answer_fields(requests[tag])))
        if tag == "stats":
            fields = set(ServiceStats.__struct_fields__)
        elif tag == "item.show":
            fields = {"state", *ListedResult.__struct_fields__}
        assert set(names) <= fields, tag


@pytest.mark.parametrize(
    ("cursor", "hint"),
    [
        ("5", "--after 5"),
        ("5|1", "--after '5|1'"),
        ("it's|1", """--after 'it'"'"'s|1'"""),
        ("a\x1b[2J\\'|1", r"--after $'a\x1b[2J\\\'|1'"),
        ("a\u200b|1", r"--after $'a\u200b|1'"),
    ],
)
def test_the_hint_of_the_next_page_can_be_pasted(cursor: str, hint: str) -> None:
    assert after_hint(cursor) == hint
    words = subprocess.run(
        ["bash", "-c", f"printf %s {hint.removeprefix('--after ')}"],
        capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert words.stdout.decode() == cursor


def in_terminal(*words: str, rows: int = 24, columns: int = 80) -> list[str]:
    """Run a command in a terminal of that size, and return the lines that it leaves there."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        [sys.executable, "-m", "coordinator", *words],
        stdin=terminal, stdout=terminal, stderr=terminal, env={**environment, "TERM": "dumb"},
    )  # fmt: skip
    os.close(terminal)
    said = b""
    while True:
        try:
            part = os.read(main, 65_536)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        said += part
    os.close(main)
    assert child.wait(30) == 0, said
    return said.decode().splitlines()


def test_stats_and_clients_are_one_screen_of_a_terminal(run: Run, server: Scripted) -> None:
    server.answers["stats"] = STATS
    lines = in_terminal("stats", "--server", server.url, "--token", TOKEN)
    assert len(lines) < 24
    assert max(map(len, lines[:-1])) <= 80
    server.answers["client.list"] = {"rows": [client(n) for n in range(20)], "next": None}
    lines = in_terminal("client", "list", "--server", server.url, "--token", TOKEN)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
