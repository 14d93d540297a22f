"""Each request of the admin channel has one method, which answers as `ANSWERS` says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_type_hints

import pytest
from msgspec import structs

from coordinator import admin
from coordinator.wire.admin import ANSWERS, AdminHello
from coordinator.wire.admin.buckets import BucketShown, ListedBucket
from coordinator.wire.admin.clients import ClientShown, ListedClient
from coordinator.wire.admin.services import ListedService, ServiceAnswer
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Request


def nouns() -> Iterator[type[Any]]:
    """The classes of the package that have requests."""
    for found in iter_modules(admin.__path__):
        module = import_module(f"{admin.__name__}.{found.name}")
        for kind in vars(module).values():
            if inspect.isclass(kind) and hasattr(kind, "steps") and kind.__module__ == module.__name__:
                yield kind


NOUNS: dict[str, Any] = {kind.__module__.rpartition(".")[2]: kind for kind in nouns()}


def noun_of(request: type[Request]) -> str:
    return request.__module__.rpartition(".")[2]


def method_of(request: type[Request]) -> Any:
    tag = tag_of(request)
    return getattr(NOUNS[noun_of(request)], tag.rpartition(".")[2])


@pytest.mark.parametrize("request_", [one for one in ANSWERS if one is not AdminHello], ids=tag_of)
def test_the_method_of_the_verb_takes_the_request_and_returns_its_answer(request_: type[Request]) -> None:
    hints = get_type_hints(method_of(request_), localns={"list": list})
    assert hints == {"request": request_, "return": ANSWERS[request_]}


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_has_the_requests_of_its_module(noun: str) -> None:
    kind = NOUNS[noun]
    steps = kind.steps(kind.__new__(kind))
    assert {request: step.__func__ for request, step in steps.items()} == {
        request: method_of(request) for request in ANSWERS if noun_of(request) == noun
    }


@pytest.mark.parametrize(
    ("row", "answer"), [(ListedService, ServiceAnswer), (ListedBucket, BucketShown), (ListedClient, ClientShown)]
)
def test_what_is_shown_of_one_is_at_least_its_row(row: Any, answer: Any) -> None:
    listed = {field.name: field.type for field in structs.fields(row)}
    shown = {field.name: field.type for field in structs.fields(answer)}
    assert listed.items() <= shown.items()


@pytest.mark.parametrize("answer", dict.fromkeys(ANSWERS.values()), ids=lambda kind: kind.__name__)
def test_every_field_of_an_answer_is_always_sent(answer: Any) -> None:
    optional = {field.name for field in structs.fields(answer) if not field.required}
    assert optional == {"ref"}
