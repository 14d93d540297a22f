"""`item import` against a server that answers by a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import item_import
from coordinator.cli.distinct_texts import DistinctTexts
from coordinator.cli.item_file import ItemFile
from coordinator.cli.item_import import ITEMS_PER_BATCH
from coordinator.keys import canonical
from tests.cli.conftest import Run
from tests.cli.scripted import Scripted, error


class Catalogue:
    """Adds what it does not know, refuses keys with a blank, and may be busy first."""

    def __init__(self, busy: int = 0) -> None:
        self.keys: set[str] = set()
        self.form: Any = "exact"
        self.busy = busy
        self.sizes: list[int] = []

    def add(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.busy:
            self.busy -= 1
            return error("rate_limited", "Slower.", retry_after=0.001)
        self.sizes.append(len(message["items"]))
        keys = [item["key"] for item in message["items"]]
        refused = [{"index": n, "key": k, "reason": "a blank"} for n, k in enumerate(keys) if " " in k]
        good = {canonical(key, self.form) for key in keys if " " not in key}
        known = len(good & self.keys)
        self.keys |= good
        return {"added": len(good) - known, "known": known, "refused": refused}


@pytest.fixture
def catalogue(server: Scripted) -> Catalogue:
    catalogue = Catalogue()
    server.answers["limits"] = {"limits": {"max_message_bytes": 1 << 20}}
    server.answers["stats"] = {"key_form": "handle"}
    server.answers["item.add"] = catalogue.add
    return catalogue


def last(stdout: str) -> Any:
    return json.loads(stdout.splitlines()[-1])


def test_a_file_in_batches_and_again(ask: Run, server: Scripted, catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("key,n\n" + "".join(f"k{n},{n}\n" for n in range(ITEMS_PER_BATCH + 321)))
    words = ("item", "import", str(file), "--service", "dm_check", "--priority", "50", "--json")
    done = ask(*words)
    assert done.exit_code == 0, done.output
    assert last(done.stdout) == {"added": ITEMS_PER_BATCH + 321, "known": 0, "repeated": 0, "refused": 0}
    assert catalogue.sizes == [ITEMS_PER_BATCH, 321]
    asked = server.asked[2]
    assert asked["items"][7] == {"key": "k7", "n": 7}
    assert (asked["services"], asked["priority"]) == (["dm_check"], 50)
    again = ask(*words)
    assert (again.exit_code, last(again.stdout)) == (
        0,
        {"added": 0, "known": ITEMS_PER_BATCH + 321, "repeated": 0, "refused": 0},
    )


def test_refused_lines_are_told_in_order_and_make_1(ask: Run, catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"key":"a"}\n{"key":"b c"}\nnonsense\n{"key":"d e"}\n{"key":"f"}\n')
    done = ask("item", "import", str(file), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"added": 2, "known": 0, "repeated": 0, "refused": 3}
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["line"], one["key"]) for one in told] == [(2, "b c"), (3, None), (4, "d e")]
    assert catalogue.keys == {"a", "f"}
    for_people = ask("item", "import", str(file))
    assert "line 2 (b c): a blank" in for_people.stderr
    assert for_people.stdout == "0 added, 2 known, 0 repeated, 3 refused\n"


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
    assert last(done.stdout) == {"added": 1, "known": 0, "repeated": 0, "refused": 0}


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
    file.write_text("ada;3\nbob;4\n")
    done = ask("item", "import", str(file))
    assert done.exit_code == 2
    assert ": ada;3\n" in done.stderr
    assert not catalogue.keys
    done = ask("item", "import", str(file), "--no-header", "--delimiter", "semicolon")
    assert (done.exit_code, catalogue.keys) == (0, {"ada", "bob"})


@pytest.mark.parametrize("wrong", [("--delimiter", ";;"), ("--delimiter", "a"), ("--no-header", "--key", "k")])
def test_wrong_options_are_2(ask: Run, catalogue: Catalogue, tmp_path: Path, wrong: tuple[str, ...]) -> None:
    file = tmp_path / "items.csv"
    file.write_text("k\nada\n")
    done = ask("item", "import", str(file), *wrong)
    assert done.exit_code == 2
    assert "expected" in done.stderr


@pytest.mark.parametrize(("form", "repeated"), [("handle", 7), ("exact", 4)])
def test_a_key_that_stands_twice_is_counted_as_such(
    ask: Run, server: Scripted, catalogue: Catalogue, tmp_path: Path, form: str, repeated: int
) -> None:
    catalogue.form = server.answers["stats"]["key_form"] = form  # type: ignore[index]  # it is an object
    catalogue.keys = {"known"}
    file = tmp_path / "items.csv"
    # In one message, and in two: the second one of those the server cannot tell from one that was known.
    keys = ["ada", "ada", "Ada", "known", "known", "a b", "a b", *(f"k{n}" for n in range(ITEMS_PER_BATCH))]
    keys += ["ada", "k7", "known2", "@ada", "https://x.com/ADA/"]
    file.write_text("key\n" + "\n".join(keys))
    done = ask("item", "import", str(file), "--json")
    counts = last(done.stdout)
    assert (counts["repeated"], counts["known"], counts["refused"]) == (repeated, 1, 2)
    assert sum(counts.values()) == len(keys)


def test_any_number_of_keys_is_counted_in_bounded_memory() -> None:
    with DistinctTexts(run=100) as texts:
        for start in range(0, 2000, 30):
            texts.add(f"k{n % 777}" for n in range(start, start + 30))
            assert len(texts._newest) < 130
        assert (texts.given, texts.count()) == (2010, 777)


def test_bad_records_alone_do_not_pile_up(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("key,n\n" + "bad\n" * 5000)
    with file.open("rb") as source:
        cut = list(item_import.batches(ItemFile(source), 1 << 20))
    assert max(len(batch.rejected) for batch in cut) <= item_import.ITEMS_PER_BATCH
    assert sum(len(batch.rejected) for batch in cut) == 5000
