"""protocol.md against the message types, both ways, and every example in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import msgspec
import pytest
from msgspec import inspect as shape

from coordinator.stats.capacity import MEASURED_CAPACITY
from coordinator.stats.tables import TABLE_FILTERS, TABLE_STATES
from coordinator.wire import admin, client, frames, stats, stats_clients
from coordinator.wire.admin import system
from coordinator.wire.codec import Codec, Undecodable, encode, error_frame, tag_of
from coordinator.wire.schema import ADMIN, CLIENT, PUBLISHED, STATS, Channel, error_codes, schema_of, session_life
from coordinator.wire.session import NEEDS_REGISTRATION

TEXT = (Path(__file__).parents[2] / "protocol.md").read_text()

Message = type[msgspec.Struct]
Row = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """The text below one heading, down to the next of its rank."""

    text: str

    def rows(self, first: str) -> list[Row]:
        """Return the rows of the table with that first heading; empty if there is none."""
        table = re.search(rf"^\| {re.escape(first)} \|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)*)", self.text, re.MULTILINE)
        if table is None:
            return []
        return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in table[1].splitlines()]

    def names(self, first: str) -> list[str]:
        """Return the first column of that table, without its quotes."""
        return [row[0].strip("`| ") for row in self.rows(first)]

    def words(self) -> set[str]:
        """Return all names in code and examples."""
        code = re.findall(r"```.*?```|`[^`\n]+`", self.text, re.DOTALL)
        return {word for one in code for word in re.findall(r"[A-Za-z_][\w.]*", one)}

    def refusals(self) -> list[str]:
        """Return the codes in the section's list of errors."""
        lines = re.findall(r"^- (`[a-z_]+`[^:\n]*)", self.text, re.MULTILINE)
        return [code for line in lines for code in re.findall(r"`([a-z_]+)`", line)]

    def examples(self) -> list[list[Any]]:
        """Return the frames of each example."""
        return [list(_frames(block)) for block in _blocks(self.text)]


def _blocks(text: str) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def _frames(block: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while block[at:].strip():
        at += len(block[at:]) - len(block[at:].lstrip())
        frame, at = decoder.raw_decode(block, at)
        yield frame


def sections(marks: str, text: str) -> dict[str, Section]:
    """Return the sections below headings of that rank, by title without quotes."""
    parts = re.split(rf"^{marks} (.+)$", text, flags=re.MULTILINE)
    titles = [title.strip("`") for title in parts[1::2]]
    assert len(titles) == len(set(titles)), "two sections of one title"
    return dict(zip(titles, map(Section, parts[2::2]), strict=True))


SECTIONS_OF_MESSAGES = ("Client requests", "Pushes", "Stats channel", "Admin requests")
PARTS = sections("##", TEXT)
CLIENT_REQUESTS = sections("###", PARTS["Client requests"].text)
PUSHES = sections("###", PARTS["Pushes"].text)
STATS_MESSAGES = sections("###", PARTS["Stats channel"].text)
ADMIN_REQUESTS = sections("###", PARTS["Admin requests"].text)

REQUESTS = [
    pytest.param(channel, one, given, id=f"{channel.name}.{tag_of(one)}")
    for channel, given in ((CLIENT, CLIENT_REQUESTS), (STATS, STATS_MESSAGES), (ADMIN, ADMIN_REQUESTS))
    for one in channel.answers
]
each_request = pytest.mark.parametrize(("channel", "message", "given"), REQUESTS)
each_push = pytest.mark.parametrize(
    ("push", "section"),
    [pytest.param(one, PUSHES[tag_of(one)], id=tag_of(one)) for one in CLIENT.pushes]
    + [pytest.param(one, STATS_MESSAGES[tag_of(one)], id=f"stats.{tag_of(one)}") for one in STATS.pushes],
)


@cache
def validator(message: Message) -> Any:
    return jsonschema_rs.validator_for(schema_of(message))


def fields_of(message: Message) -> dict[str, shape.Field]:
    """Return the fields of a message, without `ref`, which all messages have."""
    kind = shape.type_info(message)
    assert isinstance(kind, shape.StructType)
    return {field.encode_name: field for field in kind.fields if field.encode_name != "ref"}


def nested_names(message: Message) -> Iterator[str]:
    """Yield the fields of the types inside a message's fields."""

    def inside(kind: shape.Type) -> Iterator[str]:
        match kind:
            case shape.StructType():
                for field in kind.fields:
                    yield field.encode_name
                    yield from inside(field.type)
            case shape.UnionType():
                for member in kind.types:
                    yield from inside(member)
            case shape.ListType():
                yield from inside(kind.item_type)

    for name, field in fields_of(message).items():
        yield from inside(shape.type_info(PUBLISHED[message, name]) if (message, name) in PUBLISHED else field.type)


def bounds(kind: shape.Type) -> Iterator[int]:
    """Yield the upper limits that a client must know."""
    match kind:
        case shape.UnionType():
            for member in kind.types:
                yield from bounds(member)
        case shape.StrType() | shape.ListType() if kind.max_length is not None:
            yield kind.max_length
        case shape.IntType() | shape.FloatType() if kind.le is not None:
            yield int(kind.le)


def choices(kind: shape.Type) -> Iterator[str]:
    match kind:
        case shape.UnionType():
            for member in kind.types:
                yield from choices(member)
        case shape.LiteralType():
            yield from map(str, kind.values)


def test_every_message_has_its_section_and_no_other_has() -> None:
    assert list(CLIENT_REQUESTS) == [tag_of(one) for one in CLIENT.answers]
    assert list(PUSHES) == [tag_of(one) for one in CLIENT.pushes]
    ours = [tag_of(one) for one in (*STATS.answers, *STATS.pushes)]
    assert list(STATS_MESSAGES) == [*ours, "Topics", "Tables", "Statistics"]
    assert list(ADMIN_REQUESTS) == [tag_of(one) for one in ADMIN.answers]


@each_request
def test_fields_of_a_request(channel: Channel, message: Message, given: dict[str, Section]) -> None:
    section, fields = given[tag_of(message)], fields_of(message)
    assert section.names("field") == list(fields)
    assert ("No fields." in section.text) == (not fields)
    for row, (name, field) in zip(section.rows("field"), fields.items(), strict=True):
        needed = name in schema_of(message).get("required", [])
        assert ("optional" in row[1]) is not needed, name
        if field.default not in (msgspec.NODEFAULT, None):
            assert f"`{json.dumps(field.default)}`" in row[1], name
        for bound in bounds(field.type):
            assert f"{bound:,}" in row[1], name
        for choice in choices(field.type):
            assert f"`{choice}`" in row[1], name


@each_request
def test_fields_of_an_answer(channel: Channel, message: Any, given: dict[str, Section]) -> None:
    section, answer = given[tag_of(message)], channel.answers[message]
    named = section.names(f"in `{tag_of(answer)}`")
    assert len(re.findall(r"^\| in `", section.text, re.MULTILINE)) == 1
    assert sorted(named) == sorted(fields_of(answer))
    assert set(nested_names(answer)) <= section.words() | set(PARTS["Framing and limits"].names("limit"))
    for row in section.rows(f"in `{tag_of(answer)}`"):
        name = row[0].strip("`| ")
        assert row[1].endswith("optional") is (name not in schema_of(answer)["required"])
        for choice in choices(fields_of(answer)[name].type):
            assert f"`{choice}`" in "".join(row), name


@each_request
def test_nested_fields_of_a_request(channel: Channel, message: Message, given: dict[str, Section]) -> None:
    assert set(nested_names(message)) <= given[tag_of(message)].words()


@each_push
def test_fields_of_a_push(push: Message, section: Section) -> None:
    assert section.names(f"in `{tag_of(push)}`") == list(fields_of(push))
    assert section.names("field") == []
    assert set(nested_names(push)) <= section.words()
    for row, field in zip(section.rows(f"in `{tag_of(push)}`"), fields_of(push).values(), strict=True):
        for choice in choices(field.type):
            assert f"`{choice}`" in "".join(row)


@each_request
def test_refusals_of_a_request(channel: Channel, message: Any, given: dict[str, Section]) -> None:
    codes = given[tag_of(message)].refusals()
    assert set(codes) <= set(error_codes())
    assert len(codes) == len(set(codes))
    if channel is CLIENT:
        assert ("not_registered" in codes) == (message in NEEDS_REGISTRATION)
        assert ("unknown_service" in codes) == ("service" in fields_of(message) or message is client.Register)
        assert ("unknown_bucket" in codes) == ("bucket_id" in fields_of(message))
    elif channel is ADMIN and message is not admin.AdminHello:
        assert ("forbidden" in codes) == (message in admin.ADMIN_ONLY)


def test_what_an_operator_may_not() -> None:
    refused = PARTS["Admin requests"].text.partition("###")[0]
    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", refused))
    assert named == {tag_of(one) for one in admin.ADMIN_ONLY}


@each_request
def test_examples_of_a_request(channel: Channel, message: Any, given: dict[str, Section]) -> None:
    examples = given[tag_of(message)].examples()
    answer = channel.answers[message]
    codec = Codec(*channel.answers)
    answered = set()
    for request, *received in examples:
        validator(message).validate(request)
        assert type(codec.decode(json.dumps(request))) is message
        assert len(received) == 1
        kind = frames.Error if received[0]["type"] == "error" else answer
        validator(kind).validate(received[0])
        assert received[0]["ref"] == request["ref"]
        answered.add(kind)
        # It has each field of the type, also inside of others, and no more.
        told = msgspec.json.decode(json.dumps(received[0]), type=kind)
        assert json.loads(encode(told)) == received[0]
    assert answer in answered


@each_push
def test_examples_of_a_push(push: Message, section: Section) -> None:
    examples = section.examples()
    assert examples
    for block in examples:
        for frame in block:
            validator(push).validate(frame)
            assert set(frame) - {"type"} == set(fields_of(push))


def test_examples_elsewhere() -> None:
    """Each example outside the sections of messages is a request of the client channel and its answer."""
    elsewhere = "".join(part.text for title, part in PARTS.items() if title not in SECTIONS_OF_MESSAGES)
    codec = Codec(*CLIENT.answers)
    blocks = _blocks(elsewhere)
    assert blocks
    assert TEXT.count("```json") == len(_blocks(TEXT))
    for block in blocks:
        request, error = _frames(block)
        with pytest.raises(Undecodable) as refusal:
            codec.decode(json.dumps(request))
        assert error == json.loads(error_frame(refusal.value.error, refusal.value.ref))
        validator(frames.Error).validate(error)


def names_within(kind: shape.Type) -> Iterator[str]:
    """Yield the fields of a type and of the types inside it."""
    match kind:
        case shape.StructType():
            for field in kind.fields:
                yield field.encode_name
                yield from names_within(field.type)
        case shape.UnionType():
            for member in kind.types:
                yield from names_within(member)
        case shape.ListType():
            yield from names_within(kind.item_type)


def test_topics() -> None:
    section = STATS_MESSAGES["Topics"]
    assert list(stats.TOPICS) == list(get_args(stats.Topic))
    for topic in ("overview", "database"):
        named = [name for row in section.rows(f"in `{topic}`") for name in re.findall(r"`(\w+)`", row[0])]
        assert named == list(fields_of(stats.TOPICS[topic]))
        assert set(names_within(shape.type_info(stats.TOPICS[topic]))) <= section.words()
    others = {topic for topic, kind in stats.TOPICS.items() if kind is stats.FirstRows}
    assert others <= stats.ROWS.keys()
    for block in STATS_MESSAGES["snapshot"].examples():
        for frame in block:
            told = msgspec.convert(frame["data"], stats.TOPICS[frame["topic"]])
            assert msgspec.to_builtins(told) == frame["data"]


def test_tables() -> None:
    section = STATS_MESSAGES["Tables"]
    filters, fields = section.text.split("| table | fields of a row |")
    filtered, told = Section(filters), Section("| table | fields of a row |" + fields)
    assert set(filtered.names("table")) == set(told.names("table")) == set(get_args(stats.Table))
    assert set(stats.ROWS) == set(get_args(stats.Table))
    for row in filtered.rows("table"):
        table = row[0].strip("` ")
        named = set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row[1])))
        assert named == TABLE_FILTERS[table], table
        assert TABLE_STATES.get(table, frozenset()) <= set(re.findall(r"`(\w+)`", row[1]))
    for row in told.rows("table"):
        table = row[0].strip("` ")
        if table in stats.ROWS:
            words = re.findall(r"`(\w+)`", row[1])
            assert set(fields_of(stats.ROWS[table])) <= set(words), table
    of_client = next(row[1] for row in told.rows("table") if row[0].strip("` ") == "clients")
    assert set(fields_of(stats_clients.ClientInService)) <= set(re.findall(r"`(\w+)`", of_client))


def test_errors() -> None:
    errors = PARTS["Errors"]
    assert sorted(errors.names("code")) == sorted(error_codes())
    assert errors.names("in `error`") == list(fields_of(frames.Error))
    in_examples = re.findall(r'"code": "(\w+)"', TEXT)
    assert set(in_examples) <= set(error_codes())


def test_order_of_checks_names_codes() -> None:
    order = sections("###", PARTS["Errors"].text)["Order of checks"]
    named = re.findall(r"`([a-z_]+)`", re.sub(r"`(ref|submit)`", "", order.text))
    assert set(named) <= set(error_codes())
    assert len(named) == len(set(named))


def test_close_codes() -> None:
    table = sections("###", PARTS["Errors"].text)["Close codes"].names("close")
    assert [int(code) for code in table] == sorted(frames.Close)
    mentioned = set(re.findall(r"\b(?:close |with )(\d{4})\b", TEXT)) | set(re.findall(r"\b(4[45]\d\d)\b", TEXT))
    assert {"4500", "4501", "4502", "4503", "4429", "1012"} <= mentioned
    assert {int(code) for code in mentioned} <= set(frames.Close)


def test_limits() -> None:
    limits = PARTS["Framing and limits"]
    assert limits.names("limit") == list(frames.Limits.__struct_fields__)
    assert f"{frames.BYTES_BEFORE_REGISTRATION:,} bytes" in limits.text
    assert f"no deeper than {frames.MAX_DEPTH};" in limits.text
    (welcome,) = [frame for block in CLIENT_REQUESTS["hello"].examples() for frame in block[1:]]
    told = {row[0].strip("`| "): int(row[1].replace(",", "")) for row in limits.rows("limit")}
    assert welcome["limits"] == told


def test_what_a_node_carries() -> None:
    section = ADMIN_REQUESTS["limits"]
    assert section.names("of `carries`") == list(fields_of(system.Capacity))
    said = {row[0].strip("`| "): row[2] for row in section.rows("of `carries`")}
    assert re.findall(r"`(\w+)`", said["limited_by"]) == list(fields_of(system.LimitedBy))
    ((_, ok),) = section.examples()
    assert ok["carries"] == msgspec.to_builtins(MEASURED_CAPACITY)


def test_channels() -> None:
    assert PARTS["Channels"].names("path") == [CLIENT.path, STATS.path, ADMIN.path]
    assert f"`{frames.SUBPROTOCOL}`" in PARTS["Channels"].text
    assert TEXT.startswith(f"# Protocol, version {frames.PROTOCOL}\n")


def test_the_drawing_of_a_session_is_that_of_the_table() -> None:
    """To renew it: print(coordinator.wire.schema.session_life())."""
    drawn = re.search(
        r"<!-- session life: generated -->\n```text\n(.*?)\n```\n<!-- session life: end -->", TEXT, re.DOTALL
    )
    assert drawn is not None
    assert drawn[1] == session_life()


def test_sections_that_the_text_points_to() -> None:
    titles = set(re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE))
    pointed = set(re.findall(r"[Ss]ee ((?:\"[A-Z][^\"]+\"(?: and )?)+)", TEXT))
    names = {name for one in pointed for name in re.findall(r'"([^"]+)"', one)}
    assert names
    assert names <= titles
