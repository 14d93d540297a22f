"""Items out of files: what is wrong with one line costs that line alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import dashboard
from coordinator.cli.item_file import ItemFile, ParsedItem, RejectedRecord
from coordinator.cli.line_reader import MAX_LINE_BYTES
from coordinator.errors import ConfigError


def read(content: str | bytes, **options: Any) -> list[ParsedItem | RejectedRecord]:
    raw = content.encode() if isinstance(content, str) else content
    return list(ItemFile(io.BytesIO(raw), **options))


def items(found: list[ParsedItem | RejectedRecord]) -> list[Any]:
    return [json.loads(one.json) for one in found if isinstance(one, ParsedItem)]


def bad(found: list[ParsedItem | RejectedRecord]) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in found if isinstance(one, RejectedRecord)]


CASES = Path(dashboard.__file__).parent / "source" / "tests" / "item_files.json"
"""Files, and what comes of them by the command and in the browser."""


def content_of(case: dict[str, Any]) -> bytes:
    parts = [case["text"]] if isinstance(case["text"], str) else case["text"]
    text = "".join(part if isinstance(part, str) else part["repeat"][0] * part["repeat"][1] for part in parts)
    encoding = case.get("encoding", "utf-8")
    if encoding.startswith("utf-16"):
        return ("\ufeff" + text).encode(encoding, "surrogatepass")
    return text.encode(encoding)


@pytest.mark.parametrize("case", json.loads(CASES.read_text()), ids=lambda case: case["name"])
def test_what_comes_of_a_file(case: dict[str, Any]) -> None:
    content = content_of(case)
    if case.get("only") == "browser":
        return
    for most in (1, 7, 1000) if len(content) < 1000 else (1000, 65_536):
        trickle = Trickle(content)
        trickle.most = most
        if "error" in case:
            with pytest.raises(ConfigError) as refused:
                list(ItemFile(trickle))
            assert str(refused.value).startswith(case["error"])
            continue

        found = list(ItemFile(trickle))
        if "count" in case:
            assert len(items(found)) == case["count"]
        else:
            written = [[one.line, one.json.decode()] for one in found if isinstance(one, ParsedItem)]
            assert written == case["items"]
        assert [line for line, _ in bad(found)] == [line for line, _ in case["refused"]]
        for (_, reason), (_, expected) in zip(bad(found), case["refused"], strict=True):
            assert reason.startswith(expected)


def test_csv_columns_become_attributes() -> None:
    text = "account_id,screen_name,note,zip\n12,ada,,007\n-3,bob,x y,0\n,eve,1.5,99999999999999999999\n"
    assert items(read(text)) == [
        {"key": "ada", "account_id": 12, "zip": "007"},
        {"key": "bob", "account_id": -3, "note": "x y", "zip": 0},
        {"key": "eve", "note": "1.5", "zip": "99999999999999999999"},
    ]


@pytest.mark.parametrize(
    ("header", "key", "expected"),
    [
        ("a,key,screen_name", None, "2"),
        ("a,screen_name,b", None, "2"),
        ("username,account,a", None, "1"),
        ("account,a,handle", None, "3"),
        ("a,b,c", "c", "3"),
    ],
)
def test_which_column_is_the_key(header: str, key: str | None, expected: str) -> None:
    assert items(read(f"{header}\n1,2,3\n", key=key))[0]["key"] == expected


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("sep=:\nkey:n\nada:3\n", None),
        ("key:n\nada:3\n", ":"),
        ("sep=,\nkey;n\nada;3\n", ";"),  # who names one knows better
        ("name, given;key\nLovelace, Ada;ada\n", None),
        ("key,key|n\nada,3\n", ","),
    ],
)
def test_any_delimiter_that_is_named(text: str, delimiter: str | None) -> None:
    assert [item["key"] for item in items(read(text, delimiter=delimiter))] == ["ada"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ada;3\nbob;4\n", "names no key column .*: ada;3\n.*--no-header"),
        ("ada\nbob\n", "names no key column .*: ada\n"),
        ("sep=;\nada;3\n", "names no key column .*: ada;3\n"),
        ("key|x,key\n1,2\n", 'doubtful whether "," or "." separates .*: key.x,key\n.*--delimiter ","'),
    ],
)
def test_a_first_line_that_is_data_or_doubtful_is_shown(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_lines_of_one_column_that_may_be_two_are_refused() -> None:
    text = 'key\nada\nbob;3\neve\t4\n"a|b"\nzoe\n'
    found = read(text)
    assert [item["key"] for item in items(found)] == ["ada", "zoe"]
    reason = 'may separate columns: give --delimiter {0} if it does, --delimiter "," if it is part of the key'
    assert bad(found) == [(n, f"{one} {reason.format(one)}") for n, one in ((3, '";"'), (4, "tab"), (5, '"|"'))]
    assert [item["key"] for item in items(read(text, delimiter=","))] == ["ada", "bob;3", "eve\t4", "a|b", "zoe"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada\nbob\n", ["ada", "bob"]),
        ("ada;3\nbob;4\n", ["ada", "bob"]),
        ("sep=|\nada|3,5\nbob|4,5\n", ["ada", "bob"]),
        ('"ada"\t3\r\nbob\t"4\t5"\r\n', ["ada", "bob"]),
        ("key,n\n", ["key"]),
    ],
)
def test_without_a_header_the_first_line_is_an_item(text: str, expected: list[str]) -> None:
    assert items(read(text, header=False)) == [{"key": key} for key in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ada;3,5\nbob;4,5\n", '"," or ";" separates the columns in this line: ada;3,5'),
        ("ada\nLovelace, Ada\n", '"," separates the columns in this line: Lovelace, Ada\n.*part of the keys'),
    ],
)
def test_without_a_header_doubtful_delimiters_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text, header=False, format_="csv")


@pytest.mark.parametrize("after", [10, 40_000])
def test_a_quote_that_does_not_end_costs_one_line(after: int) -> None:
    good = "".join(f"k{n},{n}\n" for n in range(after))
    found = read(f'key,n\nada,"1\n{good}')
    assert len(items(found)) == after
    assert [line for line, _ in bad(found)] == [2]


def test_a_long_line_within_a_quote() -> None:
    found = read('key,n\nada,"1\n' + "x" * (MAX_LINE_BYTES + 1) + "\nbob,2\n")
    assert items(found) == [{"key": "bob", "n": 2}]
    assert [line for line, _ in bad(found)] == [2, 3]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("key,a,a\n1,2\n", None, "twice"),
        ("a,b\n", "c", "no column 'c'"),
        ("a,key\n1,2\n", "a", "second one"),
        ("a\x00b,key\n1\n", None, "U.0000"),
        ('key,"a\n', None, "header line cannot be read"),
        ("Name,n\nada,3\n", None, "names no key column .*: Name,n\nIf it names one by another word, give --key"),
        ("Key,n\nada,3\n", "key", "no column 'key' in the first line: Key,n"),
    ],
)
def test_headers_that_cannot_be_used(text: str, key: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text, key=key)


@pytest.mark.parametrize("text", ["", "\n\n", "key,n\n", "\ufeff"])
def test_files_with_nothing_in_them(text: str) -> None:
    assert read(text) == []


class Trickle(io.BytesIO):
    """Gives so many bytes at a time."""

    most = 1

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(self.most)


_CELLS = st.text(st.sampled_from('ab ,;\r\n"\x00\u2028é\ud7ff'), max_size=12)
_LINES = st.one_of(_CELLS.map(str.encode), st.sampled_from([b"ada,1", b"bob,2\r", b"", b"\xff,3", b'"eve\n",4']))


@given(lines=st.lists(_LINES, max_size=12), most=st.integers(1, 40))
def test_lines_read_by_blocks_are_the_same_as_lines_read_one_by_one(lines: list[bytes], most: int) -> None:
    content = b"key,n\n" + b"\n".join(lines)
    file = ItemFile(io.BytesIO(content), format_="csv")
    file._quoted_until = sys.maxsize
    one_by_one = list(file)
    assert read(content, format_="csv") == one_by_one

    trickle = Trickle(content)
    trickle.most = most
    file = ItemFile(trickle, format_="csv")
    assert list(file) == one_by_one
    assert file.bytes_read == len(content)


def test_long_lines_among_blocks_and_at_the_end_cost_themselves_alone() -> None:
    long = "x" * (3 * MAX_LINE_BYTES)
    found = read(f"key\nada\n{long}\nbob\n{'y' * (MAX_LINE_BYTES // 2)}\neve\n{long}", format_="csv")
    assert [one.line for one in found] == [2, 3, 4, 5, 6, 7]
    assert bad(found) == [(3, "longer than 64 KiB"), (7, "longer than 64 KiB")]


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
    def read1(self, size=-1, /):
        lines, size = [], size // 32
        while len(lines) < size and (line := self.line()): lines.append(line)
        return b"".join(lines)
    def line(self):
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
