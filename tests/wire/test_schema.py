"""The published schemas and the AsyncAPI document agree with the types."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import PeerError
from coordinator.wire import admin, client, frames, stats
from coordinator.wire.admin.fields import Ok
from coordinator.wire.codec import Codec, encode, error_frame, tag_of
from coordinator.wire.schema import (
    CHANNELS,
    PUBLISHED,
    Channel,
    asyncapi,
    error_codes,
    schema_of,
)

from .strategies import messages

# The codes that a client may meet: adding or renaming one changes the protocol.
CODES = [
    "bad_message",
    "unsupported",
    "out_of_order",
    "unauthorized",
    "forbidden",
    "bad_registration",
    "not_registered",
    "not_joined",
    "outdated",
    "client_deactivated",
    "unknown_service",
    "service_revoked",
    "unknown_bucket",
    "not_owner",
    "stale_claim",
    "unassigned_items",
    "bad_result",
    "conflict",
    "rate_limited",
    "quota",
    "no_work",
    "draining",
    "not_found",
    "exists",
    "unavailable",
    "internal",
]

EVERY = [(channel, one) for channel in CHANNELS for one in channel.messages()]
every_message = pytest.mark.parametrize(
    ("channel", "message"), EVERY, ids=[f"{channel.name}.{one.__name__}" for channel, one in EVERY]
)
every_request = pytest.mark.parametrize(
    ("channel", "message"),
    [(channel, one) for channel, one in EVERY if issubclass(one, frames.Request)],
    ids=[f"{channel.name}.{one.__name__}" for channel, one in EVERY if issubclass(one, frames.Request)],
)

SCHEMAS = {one: schema_of(one) for _, one in EVERY}
VALID = {one: jsonschema_rs.validator_for(schema) for one, schema in SCHEMAS.items()}
CODECS = {channel.name: Codec(*channel.answers) for channel in CHANNELS}
CODEC_OF: dict[type[msgspec.Struct], Codec[frames.Request]] = {
    one: CODECS[channel.name] for channel in CHANNELS for one in channel.answers
}


def any_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[msgspec.Struct]:
    """Return every message type of that kind."""
    return st.sampled_from([one for one in SCHEMAS if issubclass(one, kind)]).flatmap(messages)


def test_channels_hold_every_message_of_the_modules() -> None:
    def concrete(module: Any, base: type) -> set[type]:
        return {
            one
            for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, base) and one.__module__ == module.__name__
        }

    nouns = [import_module(f"{admin.__name__}.{found.name}") for found in iter_modules(admin.__path__)]
    kinds = (frames.Request, frames.Answer, frames.Push)
    for channel, modules in zip(CHANNELS, ([client], [stats], nouns), strict=True):
        named = set().union(*(concrete(module, kind) for module in modules for kind in kinds)) - {Ok}
        assert named == set(channel.messages()) - {frames.Error}


@every_message
def test_schema_is_valid(channel: Channel, message: type[msgspec.Struct]) -> None:
    schema = SCHEMAS[message]
    jsonschema_rs.meta.validate(schema)
    assert schema["properties"]["type"] == {"enum": [tag_of(message)]}
    assert schema.get("additionalProperties", True) is not issubclass(message, frames.Request)


@given(any_of(msgspec.Struct))
def test_schema_accepts_what_is_sent(message: msgspec.Struct) -> None:
    VALID[type(message)].validate(json.loads(encode(message)))


@given(any_of(frames.Request))
def test_round_trip(message: msgspec.Struct) -> None:
    frame = encode(message)
    again = CODEC_OF[type(message)].decode(frame.decode())
    assert type(again) is type(message)
    assert encode(again) == frame


@given(any_of(frames.Push))
def test_a_push_has_no_ref(message: msgspec.Struct) -> None:
    assert "ref" not in json.loads(encode(message))


@every_request
def test_a_field_that_is_not_known(channel: Channel, message: type[msgspec.Struct]) -> None:
    frame = {"type": tag_of(message), "surprise": 1}
    assert any("surprise" in error.message for error in VALID[message].iter_errors(frame))


@given(any_of(frames.Answer) | any_of(frames.Push))
def test_what_the_server_sends_may_grow(message: msgspec.Struct) -> None:
    VALID[type(message)].validate(json.loads(encode(message)) | {"a_later_field": [1]})


@pytest.mark.parametrize(
    ("message", "field", "bad"),
    [
        (client.Submit, "results", [{"dm": "DM"}]),
        (client.Submit, "results", [{"item": "1"}]),
        (client.Submit, "results", {"item": 1}),
        (client.Bucket, "items", [{"item": 1}]),
        (client.Register, "screen_name", "two words"),
        (client.Register, "services", [{"service": "a", "more": 1}]),
        (client.Unregister, "client_id", ""),
        (admin.items.ItemAdd, "items", ["key"]),
    ],
)
def test_open_types_have_their_published_shape(message: type[msgspec.Struct], field: str, bad: Any) -> None:
    validator = VALID[message]
    assert [error for error in validator.iter_errors({field: bad}) if field in error.instance_path]


def test_published_names_existing_fields() -> None:
    for message, field in PUBLISHED:
        assert field in message.__struct_fields__


def test_codes_are_those_of_the_protocol() -> None:
    def below(kind: type[PeerError]) -> Iterator[type[PeerError]]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    codes = [one.code for one in below(PeerError)]
    assert sorted(codes) == sorted(CODES)
    assert error_codes() == codes


@pytest.mark.parametrize("code", CODES)
def test_error_frame(code: str) -> None:
    kind = next(one for one in PeerError.__subclasses__() if one.code == code)
    bare = json.loads(error_frame(kind("No.")))
    assert bare == {"type": "error", "code": code, "message": "No."}
    full = json.loads(
        error_frame(kind("No.", detail={"path": "$"}, retry_after=1.5, scope="client", close_code=4500), "r")
    )
    VALID[frames.Error].validate(full)
    assert full == bare | {"ref": "r", "detail": {"path": "$"}, "retry_after": 1.5, "scope": "client"}


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for one in part.values():
            yield from _refs(one)
    elif isinstance(part, list):
        for one in part:
            yield from _refs(one)


def _at(document: Any, ref: str) -> Any:
    assert ref.startswith("#/")
    for step in ref[2:].split("/"):
        document = document[step]
    return document


def test_asyncapi_refs_resolve() -> None:
    document = json.loads(json.dumps(asyncapi()))
    refs = set(_refs(document))
    assert refs
    for ref in refs:
        _at(document, ref)
    used = {ref.rpartition("/")[2] for ref in refs if ref.startswith("#/components/schemas/")}
    assert used == set(document["components"]["schemas"])


def test_asyncapi_has_each_message_once() -> None:
    document = asyncapi()
    payloads = Counter(message["payload"]["$ref"] for message in document["components"]["messages"].values())
    assert set(payloads.values()) == {1}
    assert len(payloads) == len({one for _, one in EVERY})
    for channel in CHANNELS:
        described = document["channels"][channel.name]
        assert described["address"] == f"/v1/{channel.name}"
        sent = [_at(document, ref["$ref"]) for ref in described["messages"].values()]
        assert Counter(one["name"] for one in sent) == Counter(tag_of(one) for one in channel.messages())


def test_asyncapi_operations() -> None:
    document = asyncapi()
    operations = document["operations"]
    assert len(operations) == sum(len(channel.answers) + len(channel.pushes) for channel in CHANNELS)
    for channel in CHANNELS:
        place = f"#/channels/{channel.name}"
        for request, answer in channel.answers.items():
            operation = operations[f"{channel.name}.{tag_of(request)}"]
            assert (operation["action"], operation["channel"]["$ref"]) == ("receive", place)
            assert [ref["$ref"] for ref in operation["messages"]] == [f"{place}/messages/{request.__name__}"]
            assert [ref["$ref"] for ref in operation["reply"]["messages"]] == [
                f"{place}/messages/{answer.__name__}",
                f"{place}/messages/Error",
            ]
        for push in channel.pushes:
            operation = operations[f"{channel.name}.{tag_of(push)}"]
            assert operation["action"] == "send"
            assert "reply" not in operation


def test_asyncapi_schemas_judge_as_the_messages_own() -> None:
    """References to components must still reach the nested types."""
    document = asyncapi()
    root = {"$ref": "#/components/schemas/client.Hello", "components": document["components"]}
    validator = jsonschema_rs.validator_for(root)
    hello = {"type": "hello", "protocol": 1, "client_id": "a", "secret": "s" * 32}
    assert validator.is_valid(hello | {"holds": [{"bucket_id": "b", "claim": 1}]})
    assert not validator.is_valid(hello | {"holds": [{"bucket_id": "b", "claim": "1"}]})


def test_the_document_says_where_a_server_is_and_nothing_that_is_for_developers_alone() -> None:
    document = asyncapi()
    assert {server["protocol"] for server in document["servers"].values()} == {"ws", "wss"}
    assert all("{host}" in server["host"] and "host" in server["variables"] for server in document["servers"].values())
    said = json.dumps(document)
    for word in ("stays raw", "by the step", "protocol.md", ".py", "msgspec", "Struct"):
        assert word not in said


@pytest.mark.parametrize("message", [client.Submit, client.Release, client.Hold])
def test_claims_and_bucket_ids_have_their_bounds_in_the_document(message: type[msgspec.Struct]) -> None:
    fields = asyncapi()["components"]["schemas"][f"client.{message.__name__}"]["properties"]
    assert fields["claim"] == {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}
    assert fields["bucket_id"] == {"type": "string", "minLength": 1, "maxLength": 64}
