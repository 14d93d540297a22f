"""JSON Schema of every message, the AsyncAPI document, and the drawing of a session's life.

All of it is made from the types, their docstrings and the legality table, so that it cannot differ from the code.
Only fields that a type leaves open on purpose, because a later step reads them, are described by hand: `PUBLISHED`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from itertools import pairwise
from typing import Any, get_args

import msgspec
from msgspec import Struct

from coordinator.errors import PeerError
from coordinator.wire import admin, client, frames, stats
from coordinator.wire.codec import tag_of
from coordinator.wire.session import LEGAL, MOVES, SessionEvent, State

Json = dict[str, Any]


class ItemResult(Struct):
    """The result of one item; its other fields are those of the service's `result_schema`."""

    item: int


class BucketItem(Struct):
    """One item to check; its other fields are its attributes, as the service's `item_schema` says."""

    item: int
    key: str


PUBLISHED: dict[tuple[type[Struct], str], Any] = {
    (client.Submit, "results"): list[ItemResult],
    (client.Bucket, "items"): list[BucketItem],
    (client.Register, "screen_name"): frames.Name,
    (client.Register, "enrolment_token"): str | None,
    (client.Register, "services"): list[client.Choice] | None,
    (client.Unregister, "client_id"): frames.Name | None,
    (client.Exported, "rows"): list[client.ExportedRow],
    (admin.clients.ClientExportPage, "rows"): list[client.ExportedRow],
    (admin.items.ItemAdd, "items"): list[Json],
    (admin.results.ResultExportPage, "rows"): list[frames.ListedResult],
    (admin.results.ResultChangesPage, "rows"): list[admin.results.ChangedResult],
}
"""The published shape of each field whose type accepts more, because a later step reads it."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One WebSocket path: each request with its answer, and the messages that the server sends without a request."""

    name: str
    path: str
    title: str
    answers: dict[type[frames.Request], type[frames.Answer]]
    pushes: tuple[type[frames.Push], ...]

    def messages(self) -> tuple[type[Struct], ...]:
        """Return all message types of this channel, each once."""
        return tuple(dict.fromkeys((*self.answers, *self.answers.values(), frames.Error, *self.pushes)))


CLIENT = Channel("client", "/v1/client", "Work for volunteers' clients", client.ANSWERS, client.PUSHES)
ADMIN = Channel(
    "admin",
    "/v1/admin",
    "Operation, with an admin's or operator's token",
    admin.ANSWERS,
    (),
)
STATS = Channel("stats", "/v1/stats", "Live statistics, read only", stats.ANSWERS, stats.PUSHES)
CHANNELS = (CLIENT, STATS, ADMIN)


def schema_of(message: type[Struct]) -> Json:
    """Return the JSON Schema of one message; it refers to nothing outside itself."""
    parts = _parts([message], "#/$defs/{name}")
    own = parts.pop(message.__name__)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **own}
    return schema | {"$defs": parts} if parts else schema


def error_codes() -> list[str]:
    """Return every code that an `error` may carry, in the order of errors.py."""
    return [error.code for error in PeerError.__subclasses__()]


@cache
def asyncapi() -> Json:
    """Return the AsyncAPI 3.0 document of this server, served as /v1/asyncapi.json."""
    schemas: Json = {}
    for channel in CHANNELS:
        parts = _parts(channel.messages(), "#/components/schemas/{name}")
        names = {name: _key(channel, name) for name in parts}
        schemas |= {names[name]: _renamed(schema, names) for name, schema in parts.items()}

    messages = {
        _key(channel, message.__name__): _message(channel, message)
        for channel in CHANNELS
        for message in channel.messages()
    }
    operations = {name: operation for channel in CHANNELS for name, operation in _operations(channel).items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "coordinator",
            "version": str(frames.PROTOCOL),
            "description": "Shares out checks among volunteers. Each frame is one JSON object. In plain HTTP, "
            "/v1/progress.json and /v1/progress.svg tell everybody how far the work is.",
        },
        "servers": {name: _server(name) for name in ("wss", "ws")},
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _server(protocol: str) -> Json:
    """Return where a server may be; its host is known to whoever reads the document from there."""
    where = "With TLS: whatever is beyond one machine." if protocol == "wss" else "Without TLS: on the same machine."
    host = {"description": "Host and port, and the path if there is one.", "default": "127.0.0.1:8765"}
    return {"host": "{host}", "protocol": protocol, "description": where, "variables": {"host": host}}


def session_life() -> str:
    """Draw the life of a session as protocol.md shows it, from the table that decides what is legal."""
    onward = {a: (event, b) for (a, event), b in MOVES.items() if a is not b and event is not SessionEvent.END}
    ends = {a: b for (a, event), b in MOVES.items() if a is not b and event is SessionEvent.END}
    drawn = {(a, event) for a, (event, _) in onward.items()} | {(a, SessionEvent.END) for a in ends}

    state, line, drops = State.CONNECTED, "", list[int]()
    while True:
        drops.append(len(line) + len(state.value) // 2)
        line += state.value
        if state not in onward:
            break
        event, state = onward[state]
        line += f" ── {event.value} ──> "

    bottom = "└" + "".join("─" * (b - a - 1) + "┴" for a, b in pairwise(drops))
    return "\n".join(
        [
            line,
            _row(drops, "│"),
            _row(drops, SessionEvent.END.value),
            " " * drops[0] + bottom + f"──> {State.CLOSED.value}",
            "",
            "without effect: "
            + ", ".join(f"{event.value} while {a.value}" for a, event in MOVES if (a, event) not in drawn),
            "",
            *_legal(),
        ]
    )


def _row(columns: Iterable[int], word: str) -> str:
    """Return a line with the word centred on each column."""
    row = ""
    for column in columns:
        row = row.ljust(column - len(word) // 2) + word
    return row


def _legal() -> list[str]:
    """Return a line for each set of legal requests, with the states in which it holds."""
    states: dict[str, list[str]] = {}
    for state in State:
        words = ", ".join(tag_of(request) for request in client.ANSWERS if request in LEGAL[state]) or "nothing"
        states.setdefault(words, []).append(state.value)
    return [f"legal while {' or '.join(names)}: {words}" for words, names in states.items()]


def _parts(messages: Iterable[type[Struct]], ref_template: str) -> Json:
    """Return the schemas of messages and of all types that they contain, by class name."""
    messages = tuple(messages)
    given = {place: shape for place, shape in PUBLISHED.items() if place[0] in messages}
    shapes, parts = msgspec.json.schema_components([*messages, *given.values()], ref_template=ref_template)

    for (message, field), shape in zip(given, shapes[len(messages) :], strict=True):
        schema = parts[message.__name__]
        if type(None) in get_args(given[message, field]):
            schema["properties"][field] = shape | {"default": None}
        else:
            schema["properties"][field] = shape
            if field not in schema["required"]:
                schema["required"].append(field)

    for schema in parts.values():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
    if "Error" in parts:
        # Examples, not an enum: a client must accept a code that it does not know.
        parts["Error"]["properties"]["code"]["examples"] = error_codes()
    return parts


def _key(channel: Channel, name: str) -> str:
    """Return a component's name; a type of frames.py has one name in all channels."""
    return name if hasattr(frames, name) else f"{channel.name}.{name}"


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """Return the schema with its references changed to the components' names."""
    if isinstance(schema, list):
        return [_renamed(part, names) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        place, _, name = schema["$ref"].rpartition("/")
        return {**schema, "$ref": f"{place}/{names[name]}"}
    return {key: _renamed(part, names) for key, part in schema.items()}


def _ref(*steps: str) -> Json:
    return {"$ref": "#/" + "/".join(steps)}


def _said(message: type[Struct]) -> Json:
    """Return summary and description, from the docstring."""
    if not message.__doc__:
        return {}
    text = cleandoc(message.__doc__)
    summary, _, rest = text.partition("\n\n")
    said = {"summary": re.sub(r"\s+", " ", summary)}
    return said | {"description": rest} if rest else said


def _message(channel: Channel, message: type[Struct]) -> Json:
    described = {
        "name": tag_of(message),
        "title": message.__name__,
        **_said(message),
        "payload": _ref("components", "schemas", _key(channel, message.__name__)),
    }
    if not issubclass(message, frames.Push):
        described["correlationId"] = {"location": "$message.payload#/ref"}
    return described


def _channel(channel: Channel) -> Json:
    return {
        "address": channel.path,
        "title": channel.title,
        "description": f"WebSocket, subprotocol `{frames.SUBPROTOCOL}`. The first message is `hello`.",
        "messages": {
            message.__name__: _ref("components", "messages", _key(channel, message.__name__))
            for message in channel.messages()
        },
        "bindings": {"ws": {"method": "GET"}},
    }


def _operations(channel: Channel) -> Json:
    """Return the requests that the server answers, and the messages that it sends without a request."""
    place = _ref("channels", channel.name)

    def named(message: type[Struct]) -> Json:
        return _ref("channels", channel.name, "messages", message.__name__)

    operations: Json = {}
    for request, answer in channel.answers.items():
        operations[f"{channel.name}.{tag_of(request)}"] = {
            "action": "receive",
            "channel": place,
            **_said(request),
            "messages": [named(request)],
            "reply": {"channel": place, "messages": [named(answer), named(frames.Error)]},
        }

    for push in channel.pushes:
        operations[f"{channel.name}.{tag_of(push)}"] = {
            "action": "send",
            "channel": place,
            **_said(push),
            "messages": [named(push)],
        }
    return operations
