"""The worst day, with real processes: `python -m tests.e2e.restore_drill [--items N] [--daemons N]`.

A node with its own Postgres and daemons at work; `coordinator backup`; some seconds later node and Postgres are killed
with -9 and the data folder is gone; `coordinator restore` into a new one, `coordinator serve` on the same port.  Tells
what was stored before the backup and is missing afterwards (0), how many results of claims of before were accepted
afterwards (0), and the seconds until the first new result (60 at most).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from coordinator.embedded import running_dsn
from coordinator.store.fence import CLAIMS_SKIPPED

from .test_readme import PROGRAM, Serving, a_free_port, wait_until_ready

BACK_WITHIN = 60.0
"""Seconds from the kill until daemons have new results stored."""

CHECKER = """#!/bin/sh
while read -r line; do
    item=${line#*'"item":'}
    sleep 0.02
    printf '{"item": %s, "dm": "DM"}\\n' "${item%%,*}"
done
"""


async def rows(data: Path, query: str) -> list[Any]:
    """Ask the Postgres that runs in a data folder."""
    dsn = running_dsn(data)
    assert dsn is not None
    db = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await db.fetch(query)]
    finally:
        await db.close()


def ask(data: Path, query: str) -> list[Any]:
    return asyncio.run(rows(data, query))


def serve(folder: Path, data: str, port: int) -> subprocess.Popen[bytes]:
    words = ["serve", "--data", data, "--port", str(port), "--ops-port", "0"]
    node = subprocess.Popen([*PROGRAM, *words], cwd=folder, stderr=subprocess.DEVNULL)
    wait_until_ready(port, node)
    return node


def daemon(folder: Path, port: int, n: int) -> subprocess.Popen[bytes]:
    words = ["work", "--server", f"ws://127.0.0.1:{port}", "--service", "dm_check", "--exec", str(folder / "check.sh")]
    words += ["--data", str(folder / f"volunteer{n}"), "--client-id", f"drill{n}", "--profile", '{"source": "drill"}']
    return subprocess.Popen([*PROGRAM, *words], cwd=folder, stderr=subprocess.DEVNULL)


def wait_for(data: Path, more_than: int, patience: float) -> None:
    end = time.monotonic() + patience
    while ask(data, "SELECT count(*) FROM result")[0][0] <= more_than:
        assert time.monotonic() < end, f"no more than {more_than} results after {patience} s"
        time.sleep(0.1)


def kill_everything(node: subprocess.Popen[bytes], data: Path) -> None:
    """End the node, and then Postgres, without a word; the data folder is lost."""
    postmaster = int((data / "data" / "postmaster.pid").read_text().split("\n")[0])
    node.kill()
    node.wait()
    os.kill(postmaster, signal.SIGKILL)
    shutil.rmtree(data, ignore_errors=True)


def drill(folder: Path, items: int, count: int) -> bool:
    """Play it in a folder, and tell; whether all is as it should be."""
    port, former, new = a_free_port(), folder / "former", folder / "new"
    (folder / "check.sh").write_text(CHECKER)
    (folder / "check.sh").chmod(0o755)
    (folder / "items.csv").write_text("key\n" + "".join(f"k{n}\n" for n in range(items)))

    node = serve(folder, "former", port)
    Serving(folder, port).run(["item", "import", "items.csv", "--data", "former"])
    daemons = [daemon(folder, port, n) for n in range(count)]
    try:
        wait_for(former, 500, 60)
        before = set(ask(former, "SELECT item_id, claim_id FROM result"))
        begun = time.monotonic()
        subprocess.run([*PROGRAM, "backup", "day.dump", "--data", "former"], cwd=folder, check=True)
        backed_up = time.monotonic() - begun
        wait_for(former, ask(former, "SELECT count(*) FROM result")[0][0] + 200, 60)
        (last_claim,) = ask(former, "SELECT max(claim_id) FROM claim")[0]

        begun = time.monotonic()
        kill_everything(node, former)
        subprocess.run([*PROGRAM, "restore", "day.dump", "--data", "new"], cwd=folder, check=True)
        restored = time.monotonic() - begun
        node = serve(folder, "new", port)
        kept = set(ask(new, "SELECT item_id, claim_id FROM result WHERE claim_id < " + str(CLAIMS_SKIPPED)))
        wait_for(new, len(kept), BACK_WITHIN)
        back = time.monotonic() - begun

        wait_for(new, len(kept) + 500, 60)
        late = ask(new, f"SELECT item_id, claim_id FROM result WHERE claim_id < {CLAIMS_SKIPPED}")
        accepted, lost = len(set(late) - kept), len(before - kept)
        sys.stdout.write(
            f"stored before the backup: {len(before)}, lost: {lost}\n"
            f"newest claim of before: {last_claim}, results accepted under such claims after the restore: {accepted}\n"
            f"backup {backed_up:.1f} s, restore {restored:.1f} s, first new result {back:.1f} s after the kill\n"
        )
        return lost == 0 and accepted == 0 and back <= BACK_WITHIN
    finally:
        for one in daemons:
            one.kill()
        node.send_signal(signal.SIGTERM)
        node.wait(60)


def main() -> None:
    """Read the words, and drill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--daemons", type=int, default=8)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="coordinator-drill-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        sys.exit(0 if drill(folder, chosen.items, chosen.daemons) else 1)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
