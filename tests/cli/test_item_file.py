"""Items out of files: what is wrong with one line costs that line alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest

from coordinator.cli.item_file import MAX_RECORD_BYTES, ItemFile, ParsedItem, RejectedRecord
from coordinator.errors import ConfigError


def read(content: str | bytes, **options: Any) -> list[ParsedItem | RejectedRecord]:
    raw = content.encode() if isinstance(content, str) else content
    return list(ItemFile(io.BytesIO(raw), **options))


def items(found: list[ParsedItem | RejectedRecord]) -> list[Any]:
    return [json.loads(one.json) for one in found if isinstance(one, ParsedItem)]


def bad(found: list[ParsedItem | RejectedRecord]) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in found if isinstance(one, RejectedRecord)]


def test_csv_columns_become_attributes() -> None:
    text = "account_id,screen_name,note,zip\n12,ada,,007\n-3,bob,x y,0\n,eve,1.5,99999999999999999999\n"
    assert items(read(text)) == [
        {"key": "ada", "account_id": 12, "zip": "007"},
        {"key": "bob", "account_id": -3, "note": "x y", "zip": 0},
        {"key": "eve", "note": "1.5", "zip": "99999999999999999999"},
    ]


@pytest.mark.parametrize(
    ("header", "key", "expected"),
    [("a,key,screen_name", None, "2"), ("a,screen_name,b", None, "2"), ("a,b,c", None, "1"), ("a,b,c", "c", "3")],
)
def test_which_column_is_the_key(header: str, key: str | None, expected: str) -> None:
    assert items(read(f"{header}\n1,2,3\n", key=key))[0]["key"] == expected


def test_marks_and_line_ends_of_other_systems() -> None:
    found = read(b"\xef\xbb\xbfkey,n\r\nada,1\r\n\r\nbob,2")
    assert items(found) == [{"key": "ada", "n": 1}, {"key": "bob", "n": 2}]
    assert [one.line for one in found] == [2, 4]


def test_quotes_with_commas_and_newlines() -> None:
    found = read('key,note\nada,"a, ""b""\nc"\nbob,x\n')
    assert items(found) == [{"key": "ada", "note": 'a, "b"\nc'}, {"key": "bob", "note": "x"}]
    assert [one.line for one in found] == [2, 4]


def test_bad_lines_of_csv() -> None:
    long = b"x" * (MAX_RECORD_BYTES + 1)
    lines = [b"key,n", b"ada,1", b"bob", b"c\xff,1", long, b",3", b"d\x00,1", b'"e"f,1', b"a,b,c", b"eve,2", b""]
    found = read(b"\n".join(lines))
    assert items(found) == [{"key": "ada", "n": 1}, {"key": "eve", "n": 2}]
    assert bad(found) == [
        (3, "1 cells, and the header has 2"),
        (4, "not UTF-8"),
        (5, "longer than 64 KiB"),
        (6, "no key: 'key' is empty"),
        (7, "it has U+0000"),
        (8, "',' expected after '\"'"),
        (9, "3 cells, and the header has 2"),
    ]


@pytest.mark.parametrize("after", [10, 40_000])
def test_a_quote_that_does_not_end_costs_one_line(after: int) -> None:
    good = "".join(f"k{n},{n}\n" for n in range(after))
    found = read(f'key,n\nada,"1\n{good}')
    assert len(items(found)) == after
    assert [line for line, _ in bad(found)] == [2]


def test_a_long_line_within_a_quote() -> None:
    found = read('key,n\nada,"1\n' + "x" * (MAX_RECORD_BYTES + 1) + "\nbob,2\n")
    assert items(found) == [{"key": "bob", "n": 2}]
    assert [line for line, _ in bad(found)] == [2, 3]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("a,a\n1,2\n", None, "twice"),
        ("a,b\n", "c", "no column 'c'"),
        ("a,key\n1,2\n", "a", "second one"),
        ("a\x00b\n1\n", None, "U.0000"),
        ('"a\n', None, "header line cannot be read"),
    ],
)
def test_headers_that_cannot_be_used(text: str, key: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text, key=key)


@pytest.mark.parametrize("text", ["", "\n\n", "key,n\n", "\ufeff"])
def test_files_with_nothing_in_them(text: str) -> None:
    assert read(text) == []


def test_json_lines() -> None:
    text = '\ufeff{"key":"ada","n":1,"tags":["a"]}\n\n{"screen_name":"bob"}\n{"key":7}\n'
    found = read(text)
    assert items(found) == [{"key": "ada", "n": 1, "tags": ["a"]}, {"key": "bob"}, {"key": "7"}]
    assert [one.line for one in found] == [1, 3, 4]


def test_bad_lines_of_json() -> None:
    deep = b'{"key":"d","a":' + b"[" * 14 + b"]" * 14 + b"}"
    lines = [
        b'{"key":"ada"}', b'{"n":1}', b"[1]", b"{", b'{"key":"\xff"}', b'{"key":"a\\u0000"}', deep,
        b'{"key":"\\ud800"}', b'{"key":""}', b'{"key":true}',
        b'{"key":"' + b"x" * MAX_RECORD_BYTES + b'"}', b'{"key":"eve"}',
    ]  # fmt: skip
    found = read(b"\n".join(lines))
    assert items(found) == [{"key": "ada"}, {"key": "eve"}]
    assert [line for line, _ in bad(found)] == list(range(2, 12))


def test_a_key_of_another_name_in_json() -> None:
    found = read('{"id":"ada","n":1}\n{"id":"bob","key":"x"}\n', key="id", format_="jsonl")
    assert items(found) == [{"key": "ada", "n": 1}]
    assert bad(found) == [(2, "with 'id' as the key, 'key' would be a second one")]


_MILLION = """
import resource, sys, time
from coordinator.cli.item_file import ItemFile
class Endless:
    def __init__(self, format_):
        self.n, self.csv = -1, format_ == "csv"
    def readline(self, limit=-1, /):
        self.n += 1
        if self.n > 1_000_000: return b""
        if self.csv: return b"screen_name,account_id\\n" if not self.n else b"name_%d,%d\\n" % (self.n, self.n)
        return b'{"key":"name_%d","account_id":%d}\\n' % (self.n, self.n)
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, began = rss(), time.process_time()
count = sum(1 for _ in ItemFile(Endless(sys.argv[1]), format_=sys.argv[1]))
print(count, rss() - before, time.process_time() - began)
"""


@pytest.mark.parametrize(("format_", "expected"), [("csv", 1_000_000), ("jsonl", 1_000_001)])
@pytest.mark.long
@pytest.mark.measured
def test_a_million_lines_in_constant_memory(format_: str, expected: int) -> None:
    # A process of its own: the highest memory of this one may be of another test.
    done = subprocess.run(
        [sys.executable, "-c", _MILLION, format_], capture_output=True, text=True, check=True, timeout=60
    )
    count, grown, seconds = done.stdout.split()
    assert int(count) == expected
    assert int(grown) < (8 << 10) * (1024 if sys.platform == "darwin" else 1)  # KiB; macOS counts bytes
    assert float(seconds) < 30  # some seconds alone on a small machine
