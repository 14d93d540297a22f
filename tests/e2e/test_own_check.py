"""The worked example of a plugin, found by its entry point in a running `coordinator serve`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_readme import PROGRAM, Serving, a_free_port, commands, folder  # noqa: F401

pytestmark = pytest.mark.long


@pytest.fixture
def serving(
    example: Path,
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Serving]:
    packages = folder / "packages"
    shutil.copytree(example, packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    one = Serving(folder, a_free_port())
    process = one.start()
    yield one
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_service_of_it_is_added_and_works(serving: Serving) -> None:
    (words,) = [words for words in commands("Add a kind of check") if words[:2] == ["service", "add"]]
    words[words.index("--settings") + 1] = '{"bucket_size": 50}'
    added = json.loads(serving.run([*words, "--json"]))
    assert (added["service"], added["title"], added["state"]) == ("links", "Link check", "active")
    assert added["settings"]["bucket_size"] == 50
    items = [{"key": f"https://{n}.example"} for n in range(60)]
    (serving.folder / "links.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    serving.run(["item", "import", "links.jsonl", "--service", "links", "--data", "./data"])
    check = serving.folder / "check.sh"
    check.write_text(
        '#!/bin/sh\nexec sed -u -n \'s/.*"item": *\\([0-9]*\\).*/{"item": \\1, "alive": true, "status": 200}/p\'\n'
    )
    check.chmod(0o755)
    environment = {**os.environ, "XDG_DATA_HOME": str(serving.folder / "volunteer")}
    daemon = subprocess.Popen(
        [*PROGRAM, "work", "--server", serving.url, "--service", "links", "--exec", str(check)],
        cwd=serving.folder,
        env=environment,
    )
    try:
        for _ in range(100):
            shown = json.loads(serving.run(["service", "show", "links", "--json", "--data", "./data"]))
            if shown["counts"]["settled"] == 60:
                break
        assert shown["counts"]["settled"] == 60
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    found = serving.run(["result", "list", "links", "--json", "--data", "./data"]).splitlines()
    assert [json.loads(line)["value"] for line in found] == [{"alive": True, "status": 200}] * 60
