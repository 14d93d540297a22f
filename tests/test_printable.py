"""Check that text of strangers reaches a terminal as plain text only, without control characters."""

from __future__ import annotations

import json
import logging
import sys

import msgspec
import pytest
import typer

from coordinator.cli import exits, export, output
from coordinator.printable import PrintableFormatter, printable, printable_json

HOSTILE = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202ereversed\u200b\xad\u206e\U000e0041\ud800"
ACTED_UPON = ("\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\xad", "\u206e", "\U000e0041", "\ud800")


def is_harmless(text: str) -> bool:
    return not any(character in text for character in ACTED_UPON)


def test_text_keeps_what_is_seen() -> None:
    assert printable("[brackets] é 漢字 🙂") == "[brackets] é 漢字 🙂"
    assert is_harmless(printable(HOSTILE))
    assert printable("\x1b") == r"\x1b"


def test_json_means_the_same() -> None:
    text = json.dumps({"value": HOSTILE.replace("\ud800", "")}, ensure_ascii=False)
    assert is_harmless(printable_json(text))
    assert json.loads(printable_json(text)) == json.loads(text)


@pytest.mark.parametrize("as_json", [True, False])
def test_rows_and_objects_of_commands_are_harmless(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    value = HOSTILE.replace("\ud800", "")
    output.Output(as_json=as_json).rows([{"key": value, "value": {"note": value}}, {"key": "good", "value": None}])
    output.Output(as_json=as_json).answer({"key": value, "nested": [{"reason": value}]})
    attributes = {value: 1, f"rows {value}": [{value: 1}], **{f"attribute {n}": n for n in range(9)}}
    output.Output(as_json=as_json, tag="item.show").answer({"key": "good", "attributes": attributes})
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert "title" in shown


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("tag", ["item.show", "client.list"])
def test_names_of_fields_are_harmless(wide: bool, tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Volunteers name the fields of results, and files of items those of attributes."""
    hostile = HOSTILE.replace("\ud800", "")
    attributes = {f"{hostile}{number}": "x" for number in range(12)}  # more than fit into one line
    inner = [{hostile: [{hostile: 1}], "n": 1}]
    shown = output.Output(as_json=False, wide=wide, tag=tag)
    shown.answer({"attributes": attributes, "list": inner, hostile: inner})
    shown.rows([attributes, {hostile: 2}])
    shown.tell_left_out()
    written = capsys.readouterr()
    assert "title" in written.out
    assert is_harmless(written.out + written.err)


def test_what_a_server_says_is_harmless_in_the_log_of_a_daemon() -> None:
    record = logging.LogRecord("coordinator.client", logging.WARNING, "", 0, "the server says: %s", (HOSTILE,), None)
    assert is_harmless(PrintableFormatter("%(levelname)s %(message)s").format(record))


def test_a_traceback_in_the_log_of_a_daemon_is_harmless() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("coordinator.client", logging.DEBUG, "", 0, "faulty", None, sys.exc_info())
    shown = PrintableFormatter("%(message)s").format(record)
    assert is_harmless(shown)
    assert all(line.startswith("    | ") for line in shown.splitlines()[1:])


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_is_exact_in_a_file_and_harmless_on_a_terminal(
    form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a\x9b31m\u202ereversed"
    row = dict.fromkeys(export.ROW_FIELDS) | {"key": key, "value": {}, "valid": True}
    rows = msgspec.Raw(json.dumps([row], ensure_ascii=False).encode())
    table = export.CsvTable(export.CsvForm(), [], []) if form == "csv" else None

    export._write(rows, table)
    assert key in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    export._write(rows, table)
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert "reversed" in shown


def test_a_refusal_of_several_lines_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        exits.fail("It is refused.\n  path: $.plugin\x1b[2J", exits.EXIT_REFUSED)
    assert capsys.readouterr().err == "coordinator: It is refused.\n  path: $.plugin\\x1b[2J\n"
