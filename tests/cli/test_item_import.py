"""`item import` against a server that answers by a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import item_import
from coordinator.cli.item_file import ItemFile
from tests.cli.conftest import Run
from tests.cli.scripted import Scripted, error


class Catalogue:
    """Adds what it does not know, refuses keys with a blank, and may be busy first."""

    def __init__(self, busy: int = 0) -> None:
        self.keys: set[str] = set()
        self.busy = busy
        self.sizes: list[int] = []

    def add(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.busy:
            self.busy -= 1
            return error("rate_limited", "Slower.", retry_after=0.001)
        self.sizes.append(len(message["items"]))
        keys = [item["key"] for item in message["items"]]
        refused = [{"index": n, "key": k, "reason": "a blank"} for n, k in enumerate(keys) if " " in k]
        good = {key for key in keys if " " not in key}
        known = len(good & self.keys)
        self.keys |= good
        return {"added": len(good) - known, "known": known, "refused": refused}


@pytest.fixture
def catalogue(server: Scripted) -> Catalogue:
    catalogue = Catalogue()
    server.answers["limits"] = {"limits": {"max_message_bytes": 1 << 20}}
    server.answers["item.add"] = catalogue.add
    return catalogue


def last(stdout: str) -> Any:
    return json.loads(stdout.splitlines()[-1])


def test_a_file_in_batches_and_again(ask: Run, server: Scripted, catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("key,n\n" + "".join(f"k{n},{n}\n" for n in range(4321)))
    words = ("item", "import", str(file), "--service", "dm_check", "--priority", "50", "--json")
    done = ask(*words)
    assert done.exit_code == 0, done.output
    assert last(done.stdout) == {"added": 4321, "known": 0, "refused": 0}
    assert catalogue.sizes == [1000, 1000, 1000, 1000, 321]
    asked = server.asked[1]
    assert asked["items"][7] == {"key": "k7", "n": 7}
    assert (asked["services"], asked["priority"]) == (["dm_check"], 50)
    again = ask(*words)
    assert (again.exit_code, last(again.stdout)) == (0, {"added": 0, "known": 4321, "refused": 0})


def test_refused_lines_are_told_in_order_and_make_1(ask: Run, catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"key":"a"}\n{"key":"b c"}\nnonsense\n{"key":"d e"}\n{"key":"f"}\n')
    done = ask("item", "import", str(file), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"added": 2, "known": 0, "refused": 3}
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["line"], one["key"]) for one in told] == [(2, "b c"), (3, None), (4, "d e")]
    assert catalogue.keys == {"a", "f"}
    for_people = ask("item", "import", str(file))
    assert "line 2 (b c): a blank" in for_people.stderr
    assert for_people.stdout == "0 added, 2 known, 3 refused\n"


@pytest.mark.parametrize("text", ["key\nada\nbob\n", '{"key":"ada"}\n{"key":"bob"}\n'])
def test_standard_input(ask: Run, catalogue: Catalogue, text: str) -> None:
    done = ask("item", "import", "-", "--json", input=text)
    assert done.exit_code == 0, done.output
    assert catalogue.keys == {"ada", "bob"}


def test_batches_fit_the_servers_largest_message(
    ask: Run, server: Scripted, catalogue: Catalogue, tmp_path: Path
) -> None:
    server.answers["limits"] = {"limits": {"max_message_bytes": 8192}}
    file = tmp_path / "items.csv"
    file.write_text("key,text\n" + "".join(f"k{n},{'x' * 1000}\n" for n in range(20)))
    assert ask("item", "import", str(file), "--json").exit_code == 0
    assert max(catalogue.sizes) <= 8
    assert sum(catalogue.sizes) == 20
    assert all(len(json.dumps(one)) < 8192 for one in server.asked)


def test_a_busy_server_is_asked_again(ask: Run, catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.busy = 3
    file = tmp_path / "items.csv"
    file.write_text("key\nada\n")
    done = ask("item", "import", str(file), "--json")
    assert last(done.stdout) == {"added": 1, "known": 0, "refused": 0}


def test_a_refused_import_is_1_and_a_lost_server_3(
    ask: Run, server: Scripted, catalogue: Catalogue, tmp_path: Path
) -> None:
    file = tmp_path / "items.csv"
    file.write_text("key\n" + "".join(f"k{n}\n" for n in range(9000)))
    server.answers["item.add"] = error("unknown_service", "There is no service nope.")
    assert ask("item", "import", str(file), "--service", "nope").exit_code == 1
    server.answers["item.add"] = lambda message: 1012
    assert ask("item", "import", str(file)).exit_code == 3


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_2(ask: Run, server: Scripted, tmp_path: Path, name: str) -> None:
    done = ask("item", "import", str(tmp_path / name))
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr


def test_a_header_that_cannot_be_used_is_2(ask: Run, catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("a,a\n1,2\n")
    assert ask("item", "import", str(file)).exit_code == 2


def test_bad_records_alone_do_not_pile_up(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("key,n\n" + "bad\n" * 5000)
    with file.open("rb") as source:
        cut = list(item_import.batches(ItemFile(source), 1 << 20))
    assert max(len(batch.rejected) for batch in cut) <= item_import.ITEMS_PER_BATCH
    assert sum(len(batch.rejected) for batch in cut) == 5000
