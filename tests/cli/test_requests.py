"""The generated commands: one for each request, an option for each field."""

from __future__ import annotations

import csv
import inspect
import json
import os
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.cli.help_texts import EXAMPLES, FIELD_HELP, GROUP_HELP
from coordinator.cli.output import Output
from coordinator.cli.requests import command_for, example_of, fields_of
from coordinator.stats.capacity import MEASURED_CAPACITY
from coordinator.wire.admin import ANSWERS, AdminHello
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Request
from tests.cli.conftest import Run
from tests.cli.scripted import TOKEN, Scripted, error
from tests.needed import program

ASKED = [one for one in ANSWERS if one is not AdminHello]


def words_of(request: type[Request]) -> list[str]:
    return tag_of(request).replace("_", "-").split(".")


@pytest.mark.parametrize("request_", ASKED, ids=tag_of)
def test_each_request_has_a_command_with_each_field_as_an_option(run: Run, request_: type[Request]) -> None:
    shown = run(*words_of(request_), "--help")
    assert shown.exit_code == 0
    assert "Example: coordinator" in shown.stdout
    for field in request_.__struct_fields__:
        if field != "ref":
            assert f"--{field.replace('_', '-')}" in shown.stdout
    for option in ("--server", "--token", "--json"):
        assert option in shown.stdout


@pytest.mark.parametrize("request_", ASKED, ids=tag_of)
def test_words_are_there_for_all(request_: type[Request]) -> None:
    tag = tag_of(request_)
    assert example_of(request_).startswith(" ".join(["coordinator", *words_of(request_)]))
    assert "." not in tag or tag.split(".")[0] in GROUP_HELP
    assert {one.name for one in fields_of(request_)} <= FIELD_HELP.keys()


def test_examples_are_of_requests_that_there_are() -> None:
    assert EXAMPLES.keys() <= {tag_of(one) for one in ASKED}


def test_a_request_without_an_example_of_its_own_is_shown_with_what_it_needs() -> None:
    class Made(Request, tag="bucket.move_all"):
        """Made up."""

        bucket_id: str
        keys: list[str]
        reason: str | None = None

    assert example_of(Made) == "coordinator bucket move-all --bucket-id BUCKET_ID KEY"


def test_what_a_request_is_about_needs_no_name() -> None:
    subjects = {tag_of(one): next((f.name for f in fields_of(one) if f.is_subject), None) for one in ASKED}
    expected = {
        "service.show": "service",
        "service.list": None,
        "item.add": "items",
        "item.show": "key",
        "item.prioritize": "keys",
        "item.delete": "keys",
        "item.waiting": "service",
        "client.deactivate": "client_id",
        "client.list": None,
        "bucket.release": "bucket_id",
        "result.list": "service",
        "token.issue": None,
        "token.revoke": "token_id",
        "node.drain": "node",
    }

    assert {tag: subjects[tag] for tag in expected} == expected


def test_a_yes_or_no_becomes_a_pair_of_flags_and_an_object_json() -> None:
    class Made(Request, tag="service.made"):
        """Made up."""

        service: str
        dry_run: bool
        settings: dict[str, Any] | None = None

    given = {one.name: one for one in fields_of(Made)}
    assert given["dry_run"].python is bool
    assert given["settings"].json
    assert given["settings"].value('{"a": 1}', None) == {"a": 1}
    names = list(inspect.signature(command_for(Made)).parameters)
    assert names[0] == "argument_service"
    assert {"field_service", "field_dry_run", "field_settings"} <= set(names)


def test_hello_and_one_line_of_json(ask: Run, server: Scripted) -> None:
    server.answers["item.show"] = {"item": 7, "key": "ada", "attributes": {}, "services": []}
    done = ask("item", "show", "ada", "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == {"item": 7, "key": "ada", "attributes": {}, "services": []}
    assert server.asked == [{"key": "ada"}]
    assert (server.path, server.subprotocol) == ("/v1/admin", "coordinator.v1")
    assert server.hello["protocol"] == 1


@pytest.mark.parametrize("placed", [True, False])
def test_by_place_and_by_name(ask: Run, server: Scripted, placed: bool) -> None:
    server.answers["item.prioritize"] = {"prioritized": 2, "unknown": []}
    words = ["ada", "bob"] if placed else ["--keys", "ada", "--key", "bob"]
    assert ask("item", "prioritize", *words, "--service", "dm_check", "--priority", "5").exit_code == 0
    assert server.asked == [{"keys": ["ada", "bob"], "service": "dm_check", "priority": 5}]


def test_prioritizing_unknown_keys_is_1_and_tells_the_answer(ask: Run, server: Scripted) -> None:
    server.answers["item.prioritize"] = {"prioritized": 1, "unknown": ["bob"]}
    done = ask("item", "prioritize", "ada", "bob", "--service", "dm_check", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (1, {"prioritized": 1, "unknown": ["bob"]})
    server.answers["item.delete"] = {"deleted": 1, "unknown": ["bob"]}
    assert ask("item", "delete", "ada", "bob", "--yes").exit_code == 0  # bob is not there, as was wanted


def test_items_are_keys_or_objects(ask: Run, server: Scripted) -> None:
    server.answers["item.add"] = {"added": 2, "known": 0, "refused": []}
    assert ask("item", "add", "ada", '{"key": "bob", "n": 1}', "--service", "dm_check").exit_code == 0
    assert server.asked[0]["items"] == [{"key": "ada"}, {"key": "bob", "n": 1}]
    assert server.asked[0]["services"] == ["dm_check"]


def pages(count: int, size: int) -> Any:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        start = int(message["after"] or 0)
        end = min(count, start + min(size, message["limit"]))
        rows = [{"service": "dm_check", "item": n, "key": f"k[{n}]", "priority": 100} for n in range(start, end)]
        return {"rows": rows, "next": str(end) if end < count else None}

    return answer


def test_all_pages_are_followed_one_object_a_line(ask: Run, server: Scripted) -> None:
    server.answers["item.waiting"] = pages(25, 10)
    done = ask("item", "waiting", "dm_check", "--json")
    assert [json.loads(line)["item"] for line in done.stdout.splitlines()] == list(range(25))
    assert [one["after"] for one in server.asked] == [None, "10", "20"]
    assert done.exit_code == 0


def test_a_limit_gives_one_page_and_tells_where_it_ended(ask: Run, server: Scripted) -> None:
    server.answers["item.waiting"] = pages(25, 10)
    done = ask("item", "waiting", "dm_check", "--limit", "4", "--json")
    assert len(done.stdout.splitlines()) == 4
    assert "--after 4" in done.stderr
    again = ask("item", "waiting", "dm_check", "--limit", "4", "--after", "4", "--json")
    assert json.loads(again.stdout.splitlines()[0])["item"] == 4


def test_tables_for_people(ask: Run, server: Scripted) -> None:
    server.answers["item.waiting"] = pages(3, 10)
    done = ask("item", "waiting", "dm_check")
    assert "k[2]" in done.stdout  # brackets are no markup
    assert "3 in all" in done.stderr
    result = {"item": 7, "value": {"dm": "DM"}, "client_id": "ada", "valid": True}
    service = {"service": "dm_check", "state": "settled", "results": [result]}
    server.answers["item.show"] = {"item": 7, "key": "ada", "attributes": {"n": 1}, "services": [service]}
    shown = ask("item", "show", "ada").stdout
    for word in ("ada", "dm_check", "settled", "dm: DM", "yes"):
        assert word in shown


def test_taking_results_back_asks_first_unless_it_is_dry(ask: Run, server: Scripted) -> None:
    server.answers["result.invalidate"] = {"count": 3, "invalidation_id": None}
    words = ("result", "invalidate", "--client-id", "ada", "--requeue")
    unsure = ask(*words, "--no-dry-run")
    assert (unsure.exit_code, [one["dry_run"] for one in server.asked]) == (2, [True])
    assert "Really take back 3 results of ada in all services?" in unsure.stderr
    assert ask(*words, "--dry-run").exit_code == 0
    assert ask(*words, "--no-dry-run", "--yes").exit_code == 0
    assert ask(*words, "--no-dry-run", input="y\n").exit_code == 0
    assert [one["dry_run"] for one in server.asked] == [True, True, False, True, False]

    server.answers["result.invalidate"] = {"count": 1, "invalidation_id": None}
    everything = ask("result", "invalidate", "--no-dry-run", "--no-requeue", "--since", "2026-01-31T12:00:00Z")
    assert "1 result of all clients in all services since 2026-01-31T12:00:00Z?" in everything.stderr


def test_erasing_a_client_asks_first(ask: Run, server: Scripted) -> None:
    server.answers["client.erase"] = {"erased": "12"}
    assert ask("client", "erase", "ada").exit_code == 2
    assert server.asked == []
    assert ask("client", "erase", "ada", "--yes").exit_code == 0


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_follows_all_pages(ask: Run, server: Scripted, form: str) -> None:
    columns = ("service", "item", "key", "value", "client_id", "session_id", "bucket_id", "claim", "at", "valid")
    row = dict.fromkeys(columns, "x") | {"value": {"a": [1, "b,c"]}, "valid": True}

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {"rows": [row, row], "next": "5|1" if message["after"] is None else None}

    server.answers["result.export"] = answer
    server.answers["service.show"] = {"result_schema": {"properties": {"a": {}}}}
    done = ask("result", "export", "dm_check", "--format", form)
    assert done.exit_code == 0, done.output

    if form == "jsonl":
        assert [json.loads(line) for line in done.stdout.splitlines()] == [row] * 4
    else:
        header, *rows = csv.reader(StringIO(done.stdout))
        assert tuple(header) == (*columns, "attributes", "value.a")
        assert len(rows) == 4
        assert json.loads(rows[0][3]) == row["value"]

    page = ask("result", "export", "dm_check", "--format", form, "--limit", "2")
    assert "--after '5|1'" in page.stderr


CELLS = [
    "007", "=1+1", "+3", "-2", "@SUM(1)", "1e5", "MAR1", "TRUE", "9" * 30, "2026-01-31", 'say "hi"',
    "a,b;c", "Zoë", "x", " y",
]  # fmt: skip
"""Keys that a spreadsheet takes for something else, or might."""


def exported_for_spreadsheets(ask: Run, server: Scripted) -> str:
    columns = ("service", "item", "key", "value", "client_id", "session_id", "bucket_id", "claim", "at", "valid")
    rows = [
        dict.fromkeys(columns, key) | {"value": {"key": key}, "attributes": {"=a": key}, "claim": 1, "valid": True}
        for key in CELLS
    ]
    server.answers["result.export"] = {"rows": rows, "next": None}
    server.answers["service.show"] = {"result_schema": {"properties": {"key": {}}}}
    done = ask("result", "export", "dm_check", "--format", "csv", "--spreadsheet")
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_export_for_spreadsheets_has_formulas_of_its_texts_alone(ask: Run, server: Scripted) -> None:
    header, *rows = csv.reader(StringIO(exported_for_spreadsheets(ask, server)))
    assert (header[0], header[-2:]) == ("\ufeffservice", ["value.key", "attributes.=a"])
    for key, row in zip(CELLS, rows, strict=True):
        for place in (0, 2, 4, 5, 6, 8, 11, 12):
            assert row[place] == '="' + key.replace('"', '""') + '"'
        assert (json.loads(row[3]), row[7], row[9]) == ({"key": key}, "1", "true")

    assert ask("result", "export", "dm_check", "--format", "jsonl", "--spreadsheet").exit_code == 2


def test_a_csv_has_a_column_for_each_field_and_attribute(ask: Run, server: Scripted) -> None:
    row = dict.fromkeys(("service", "key", "client_id", "session_id", "bucket_id", "at"), "x") | {"claim": 1}
    found = [
        {**row, "item": 1, "valid": True, "value": {"dm": "DM"}, "attributes": {"lang": "de", "n": 7, "tags": ["a"]}},
        {**row, "item": 2, "valid": True, "value": {"dm": "NON_DM", "note": True}, "attributes": {"odd key": None}},
    ]
    server.answers["result.export"] = {"rows": found, "next": "5|2"}
    server.answers["service.show"] = {"result_schema": {"properties": {"dm": {}, "note": {}}}}
    words = ("result", "export", "dm_check", "--format", "csv", "--limit", "2")
    done = ask(*words, "--bom")
    assert done.stdout.startswith("\ufeffservice,item,")
    first, second = csv.DictReader(StringIO(done.stdout))
    assert [first[name] for name in ("value.dm", "value.note", "attributes.lang", "attributes.n")] == [
        "DM",
        "",
        "de",
        "7",
    ]
    assert (first["attributes.tags"], second["value.note"], second["attributes.lang"]) == ('["a"]', "true", "")
    assert json.loads(second["attributes"]) == {"odd key": None}
    assert all(asked.get("attributes", True) for asked in server.asked)
    assert done.stderr == (
        "There is more: --after '5|2' --attribute lang --attribute n --attribute tags --attribute 'odd key'\n"
    )

    (further,) = csv.reader(StringIO(ask(*words, "--after", "5|2", "--attribute", "n").stdout.splitlines()[0]))
    assert further[-3:] == ["DM", "", "7"]
    assert ask(*words[:4], "jsonl", "--attribute", "n").exit_code == 2


@pytest.mark.long
def test_libreoffice_reads_back_the_texts_of_an_export(ask: Run, server: Scripted, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(exported_for_spreadsheets(ask, server), encoding="utf-8", newline="")
    form = "Text - txt - csv (StarCalc):44,34,76,1"  # commas, quotes, UTF-8, from the first line on
    words = [
        f"--infilter={form}",
        "--convert-to",
        f"csv:{form},,0,false,true,false",
        "--outdir",
        str(tmp_path / "back"),
    ]
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(
        [program("soffice", "libreoffice-calc-nogui"), "--headless", *words, str(file)],
        env=environment,
        check=True,
        timeout=120,
    )
    with (tmp_path / "back" / "results.csv").open(encoding="utf-8", newline="") as back:
        _, *rows = csv.reader(back)
    for place in (0, 2, 11, 12):
        assert [row[place] for row in rows] == CELLS
    assert [json.loads(row[3]) for row in rows] == [{"key": key} for key in CELLS]


def test_changes_are_followed_as_far_as_there_are_more(ask: Run, server: Scripted) -> None:
    rows = [{"service": "dm_check", "item": 1, "at": "2026-01-31T12:00:00Z", "change": "deleted"}]

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {"rows": rows, "next": "7|1" if message["after"] is None else "9|0", "more": message["after"] is None}

    server.answers["result.changes"] = answer
    done = ask("result", "changes", "dm_check", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == rows * 2
    assert done.stderr == "Later changes: --after '9|0'\n"
    assert ask("result", "changes", "dm_check", "--limit", "1").stderr == "There is more: --after '7|1'\n"


def test_refused_is_1(ask: Run, server: Scripted) -> None:
    server.answers["service.show"] = error("not_found", "There is no service nope.", detail={"name": "nope"})
    done = ask("service", "show", "nope")
    assert done.exit_code == 1
    assert "There is no service nope. (not_found)" in done.stderr
    assert done.stdout == ""


def test_a_wrong_token_is_1(run: Run, server: Scripted) -> None:
    done = run("stats", "--server", server.url, "--token", "wrong")
    assert done.exit_code == 1
    assert "No such token." in done.stderr


@pytest.mark.parametrize(("code", "exit_code"), [(4501, 1), (4500, 1), (1012, 3), (1011, 3)])
def test_a_close_says_why(ask: Run, server: Scripted, code: int, exit_code: int) -> None:
    server.answers["stats"] = lambda message: code
    done = ask("stats")
    assert done.exit_code == exit_code
    assert done.stderr.startswith("coordinator: ")


@pytest.mark.parametrize(
    "words",
    [
        ["item", "show"],
        ["item", "show", "a", "--key", "b"],
        ["item", "prioritize", "a"],
        ["item", "prioritize", "a", "--service", "no blanks"],
        ["item", "prioritize", "a", "--service", "s", "--priority", "300"],
        ["item", "waiting", "s", "--limit", "0"],
        ["item", "add", "{"],
        ["bucket", "list", "--state", "lost"],
        ["item", "nope"],
        ["item", "show", "a", "--nope"],
    ],
)
def test_wrong_usage_is_2(ask: Run, server: Scripted, words: list[str]) -> None:
    assert ask(*words).exit_code == 2
    assert server.asked == []


def test_no_server_is_3_and_told_before_a_missing_token(run: Run) -> None:
    done = run("stats", "--server", "ws://127.0.0.1:1")
    assert done.exit_code == 3
    assert "127.0.0.1:1" in done.stderr


def test_no_address_is_2(run: Run) -> None:
    assert run("stats", "--server", "ftp://x").exit_code == 2


def test_no_token_is_2(run: Run, server: Scripted) -> None:
    done = run("stats", "--server", server.url)
    assert done.exit_code == 2
    assert "COORDINATOR_TOKEN" in done.stderr


def test_where_the_token_comes_from(
    run: Run, server: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.answers["stats"] = {"services": []}
    (tmp_path / "admin-token").write_text(f"{TOKEN}\n")
    assert run("stats", "--server", server.url, "--data", str(tmp_path)).exit_code == 0
    monkeypatch.setenv("COORDINATOR_TOKEN", "other")
    assert run("stats", "--server", server.url, "--data", str(tmp_path)).exit_code == 1
    assert server.hello["token"] == "other"
    assert run("stats", "--server", server.url, "--token", TOKEN).exit_code == 0


@pytest.mark.parametrize("form", ["ws://127.0.0.1:{}", "http://127.0.0.1:{}/", "ws://127.0.0.1:{}/v1/admin"])
def test_forms_of_the_address(run: Run, server: Scripted, form: str) -> None:
    server.answers["health"] = {"live": True, "ready": True}
    done = run("health", "--server", form.format(server.port), "--token", TOKEN, "--json")
    assert json.loads(done.stdout) == {"live": True, "ready": True}


@pytest.mark.parametrize(
    ("words", "input_", "deleted"), [(["--yes"], "", True), ([], "y\n", True), ([], "n\n", False), ([], "", False)]
)
def test_deleting_asks(ask: Run, server: Scripted, words: list[str], input_: str, deleted: bool) -> None:
    server.answers["item.delete"] = {"deleted": 1, "unknown": []}
    done = ask("item", "delete", "ada", *words, input=input_)
    assert done.exit_code == (0 if deleted else 2)
    assert server.asked == ([{"keys": ["ada"]}] if deleted else [])


def test_lists_within_an_object_within_the_answer_become_tables(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).answer(
        {"database": {"statements": [{"statement": "claims.claim", "calls": 3}], "pool_waits": 1}}
    )
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["statement", "calls"] in shown
    assert ["claims.claim", "3"] in shown
    assert ["pool_waits", "1"] in shown


def test_lists_within_rows_stand_behind_one_table_of_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    services = [
        {"service": "a", "waiting": 1, "oldest": [{"priority": 100}]},
        {"service": "b", "waiting": 2, "oldest": []},
    ]
    Output(as_json=False, tag="item.show").answer({"services": services})
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[2:5] == [["service", "waiting"], ["a", "1"], ["b", "2"]]
    assert shown[-2:] == [["service", "priority"], ["a", "100"]]


CARRYING = {
    "limits": {"max_message_bytes": 1 << 20, "max_sessions": 50},
    "carries": msgspec.to_builtins(MEASURED_CAPACITY),
}


def test_what_a_node_carries_beside_what_sets_the_limit(ask: Run, server: Scripted) -> None:
    server.answers["limits"] = CARRYING
    shown = [line.strip().split(maxsplit=2) for line in ask("limits").stdout.splitlines()]
    assert ["machine", *MEASURED_CAPACITY.machine.split(maxsplit=1)] in shown
    assert ["memory_per_session", str(MEASURED_CAPACITY.memory_per_session)] in shown
    assert ["field", "value", "limited_by"] in shown
    for name, sentence in msgspec.to_builtins(MEASURED_CAPACITY.limited_by).items():
        assert [name, str(getattr(MEASURED_CAPACITY, name)), sentence] in shown


def test_what_a_node_carries_is_one_line_of_json(ask: Run, server: Scripted) -> None:
    server.answers["limits"] = CARRYING
    done = ask("limits", "--json")
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == CARRYING


def test_an_object_of_many_fields_within_the_answer_is_shown_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    many = {f"field_{n}": n for n in range(9)}
    Output(as_json=False).answer({"many": many, "few": {"a": 1, "b": 2}})
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown == [["few", "a:", "1,", "b:", "2"], [], ["many"], *([name, str(n)] for name, n in many.items())]
