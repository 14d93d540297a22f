from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from coordinator.client import spool as module
from coordinator.client.spool import Spool


def kept(spool: Spool) -> dict[str, list[bytes]]:
    return {name: [result.raw for result in bucket.results.values()] for name, bucket in spool.buckets.items()}


def reopened(spool: Spool, folder: Path) -> Spool:
    spool.close()
    return Spool.open(folder, "ada")


async def test_what_is_kept_survives(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "ada")
    spool.add_bucket("b", "dm_check", 1)
    result = await spool.add_result_durably("b", 1, b'{"item":1,"dm":"DM"}', True)
    await spool.add_result_durably("b", 2, b'{"item":2,"complete":false}', False)
    spool.add_bucket("c", "dm_check", 4)
    await spool.add_result_durably("c", 3, b'{"item":3}', True)
    spool.add_bucket("b", "dm_check", 9)
    spool.forget("b", [result])
    spool.remove_bucket("c")

    again = reopened(spool, tmp_path)
    assert kept(again) == {"b": [b'{"item":2,"complete":false}']}
    assert again.buckets["b"].claim == 9
    (part,) = again.buckets["b"].results.values()
    assert (part.item, part.settles) == (2, False)
    again.close()


async def test_torn_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool.open(tmp_path, "ada")
    spool.add_bucket("b", "dm_check", 1)
    await spool.add_result_durably("b", 1, b'{"item":1}', True)
    await spool.add_result_durably("b", 2, b'{"item":2}', True)
    whole = spool.path.read_bytes()
    spool.path.write_bytes(whole[:-7])
    again = reopened(spool, tmp_path)
    assert kept(again) == {"b": [b'{"item":1}']}
    assert "torn" in caplog.text
    await again.add_result_durably("b", 3, b'{"item":3}', True)  # not glued to the torn line
    last = reopened(again, tmp_path)
    assert kept(last) == {"b": [b'{"item":1}', b'{"item":3}']}
    last.close()


async def test_file_is_the_owners_alone(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "new", "ada")
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700
    spool.close()


async def test_two_at_once_take_a_file_each_and_the_next_takes_both_over(tmp_path: Path) -> None:
    first, second = Spool.open(tmp_path, "ada"), Spool.open(tmp_path, "ada")
    assert first.path != second.path
    first.add_bucket("b", "dm_check", 1)
    second.add_bucket("c", "dm_check", 2)
    await first.add_result_durably("b", 1, b'{"item":1}', True)
    await second.add_result_durably("c", 2, b'{"item":2}', True)
    second.close()
    again = reopened(first, tmp_path)
    assert kept(again) == {"b": [b'{"item":1}'], "c": [b'{"item":2}']}
    last = reopened(again, tmp_path)
    assert kept(last) == {"b": [b'{"item":1}'], "c": [b'{"item":2}']}
    last.close()


async def test_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPACT_AT_BYTES", 2000)
    spool = Spool.open(tmp_path, "ada")
    spool.add_bucket("always", "dm_check", 1)
    await spool.add_result_durably("always", 1, b'{"item":1}', True)
    for n in range(200):
        spool.add_bucket(f"b{n}", "dm_check", 1)
        await spool.add_result_durably(f"b{n}", n, b'{"item":%d}' % n, True)
        spool.remove_bucket(f"b{n}")
    assert spool.path.stat().st_size < 4000
    again = reopened(spool, tmp_path)
    assert kept(again) == {"always": [b'{"item":1}']}
    again.close()


async def test_many_at_once_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool.open(tmp_path, "ada")
    spool.add_bucket("b", "dm_check", 1)
    syncs = []
    sync = os.fsync

    def counted(file: int) -> None:
        syncs.append(file)
        sync(file)

    monkeypatch.setattr(os, "fsync", counted)
    async with asyncio.TaskGroup() as group:
        for n in range(50):
            group.create_task(_keep(spool, n))

    assert 1 <= len(syncs) <= 3
    spool.close()


async def _keep(spool: Spool, n: int) -> None:
    await spool.add_result_durably("b", n, b'{"item":%d}' % n, True)
