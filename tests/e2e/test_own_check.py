"""Plugins from outside, found by their entry points in a running `coordinator serve`: the README's as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_readme import PROGRAM, README, Serving, a_free_port, commands, folder  # noqa: F401

pytestmark = pytest.mark.long


def readme_package(where: Path) -> None:
    """Install what the README shows as `pip install` would: a module, and the entry points in its metadata."""
    section = README.read_text(encoding="utf-8").split("## Add a kind of check", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    points = tomllib.loads(project)["project"]["entry-points"]
    metadata = where / "link_alive-1.0.dist-info"
    metadata.mkdir(parents=True)
    (where / "link_alive.py").write_text(code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: link-alive\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in ones.items()) for group, ones in points.items())
    )


@pytest.fixture(params=["README", "example"])
def serving(
    request: pytest.FixtureRequest,
    example: Path,
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Serving]:
    packages = folder / "packages"
    if request.param == "README":
        readme_package(packages)
    else:
        shutil.copytree(example, packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    one = Serving(folder, a_free_port())
    process = one.start()
    yield one
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_service_of_it_is_added_and_works(serving: Serving) -> None:
    (words,) = commands("Add a kind of check")
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
