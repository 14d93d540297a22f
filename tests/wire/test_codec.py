"""Good frames, bad frames, and the errors that answer bad ones."""

from __future__ import annotations

import json
import timeit
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator.errors import BadMessage, PeerError, Unsupported
from coordinator.wire import admin, client
from coordinator.wire.codec import (
    MAX_PARTS,
    Codec,
    Undecodable,
    encode,
    error_frame,
    forbidden,
    peek_ref,
    tag_of,
    too_deep,
)
from coordinator.wire.frames import MAX_DEPTH, Request

from .strategies import plain

CLIENT: Codec[Request] = Codec(*client.ANSWERS, deep=client.Submit)
ADMIN: Codec[Request] = Codec(*admin.ANSWERS)
HOLD = '{"bucket_id": "b", "claim": 1}'


def refused(frame: str, codec: Codec[Request] = CLIENT) -> Undecodable:
    with pytest.raises(Undecodable) as refusal:
        codec.decode(frame)
    return refusal.value


def path_of(error: PeerError) -> str:
    assert error.detail is not None
    return str(error.detail["path"])


def nested(levels: int) -> str:
    """Return a value with that many levels."""
    return "[" * levels + "]" * levels


def submit(results: str) -> str:
    return f'{{"type": "submit", "bucket_id": "b", "claim": 1, "final": false, "results": {results}}}'


def test_a_good_frame() -> None:
    message = CLIENT.decode('{"type": "ask", "ref": "a", "service": "dm_check", "count": 3}')
    assert message == client.Ask(ref="a", service="dm_check", count=3, wait=True)


def test_order_of_keys_and_escapes_do_not_matter() -> None:
    assert CLIENT.decode(' {"service":"s", "typ\\u0065":"jo\\u0069n"} ') == client.Join(service="s")


def test_a_newline_ends_no_name() -> None:
    refused('{"type": "join", "service": "s\\n"}')


def test_results_are_handed_on_unread() -> None:
    message = CLIENT.decode(submit('[{"item": 1,  "dm": "DM"}]'))
    assert isinstance(message, client.Submit)
    assert bytes(message.results) == b'[{"item": 1,  "dm": "DM"}]'


@pytest.mark.parametrize(
    "frame",
    [
        "",
        " ",
        "nope",
        "{",
        '{"type": "services"',
        '{"type": "services"}}',
        '{"type": "services"} {"type": "services"}',
        '{"type": "services",}',
        "{'type': 'services'}",
        '{"type": "services" /* why */}',
        '\ufeff{"type": "services"}',
        '{"type": "join", "service": "s\n"}',
        '{"type": "report", "service": "s", "kind": "cannot_work", "retry_after": NaN}',
        '{"type": "report", "service": "s", "kind": "cannot_work", "retry_after": Infinity}',
        '{"type": "ask", "service": "s", "count": 01}',
        submit("[}"),
    ],
)
def test_not_json(frame: str) -> None:
    refusal = refused(frame)
    assert isinstance(refusal.error, BadMessage)
    assert refusal.error.message.startswith("Not JSON")
    assert path_of(refusal.error) == "$"
    assert refusal.ref is None


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        ("[]", "$"),
        ("null", "$"),
        ("3", "$"),
        ('"services"', "$"),
        ("{}", "$.type"),
        ('{"ref": 1}', "$.type"),
        ('{"type": null}', "$.type"),
        ('{"type": 5}', "$.type"),
        ('{"type": ["services"]}', "$.type"),
        ('{"type": "join"}', "$.service"),
        ('{"type": "join", "service": 5}', "$.service"),
        ('{"type": "join", "service": "two words"}', "$.service"),
        ('{"type": "join", "service": ""}', "$.service"),
        (f'{{"type": "join", "service": "{"s" * 65}"}}', "$.service"),
        ('{"type": "join", "service": "s", "profile": []}', "$.profile"),
        ('{"type": "ask", "service": "s", "count": -1}', "$.count"),
        ('{"type": "ask", "service": "s", "count": 1.5}', "$.count"),
        ('{"type": "ask", "service": "s", "count": 1.0}', "$.count"),
        ('{"type": "ask", "service": "s", "count": "1"}', "$.count"),
        ('{"type": "ask", "service": "s", "count": true}', "$.count"),
        ('{"type": "ask", "service": "s", "count": null}', "$.count"),
        ('{"type": "ask", "service": "s", "count": 1, "wait": 1}', "$.wait"),
        (
            '{"type": "recollect", "holds": [{"bucket_id": "b", "claim": 1}, {"claim": 1}]}',
            "$.holds[1].bucket_id",
        ),
        (
            f'{{"type": "recollect", "holds": [{HOLD}, {{"bucket_id": "b", "claim": "1"}}]}}',
            "$.holds[1].claim",
        ),
        ('{"type": "release", "bucket_id": "b", "claim": 9007199254740992}', "$.claim"),
        ('{"type": "report", "service": "s", "kind": "bored"}', "$.kind"),
        ('{"type": "report", "service": "s", "kind": "cannot_work", "retry_after": -1}', "$.retry_after"),
        (f'{{"type": "report", "service": "s", "kind": "cannot_work", "text": "{"x" * 1025}"}}', "$.text"),
        ('{"type": "hello", "protocol": 1, "client_id": "a", "secret": "short"}', "$.secret"),
        ('{"type": "services", "ref": 1.5}', "$.ref"),
        ('{"type": "services", "ref": null}', "$.ref"),
        ('{"type": "services", "ref": true}', "$.ref"),
        ('{"type": "services", "ref": {}}', "$.ref"),
        (f'{{"type": "services", "ref": "{"r" * 65}"}}', "$.ref"),
    ],
)
def test_wrong_shape(frame: str, path: str) -> None:
    refusal = refused(frame)
    assert isinstance(refusal.error, BadMessage)
    assert path_of(refusal.error) == path


@pytest.mark.parametrize("ref", ["7", "-7", "0", '"seven"', '""', f'"{"r" * 64}"', '"é\\""'])
@pytest.mark.parametrize("rest", ['"type": "nope"', '"type": "services", "x": 1', '"type": "join"', '"x": {}'])
def test_a_refusal_keeps_the_ref(ref: str, rest: str) -> None:
    refusal = refused(f'{{"ref": {ref}, {rest}}}')
    assert refusal.ref == json.loads(ref)
    assert json.loads(error_frame(refusal.error, refusal.ref))["ref"] == json.loads(ref)


@pytest.mark.parametrize("ref", ["1.5", "null", "true", "[1]", "{}", f'"{"r" * 65}"', '"\\u0000"'])
def test_a_ref_that_is_none_is_not_kept(ref: str) -> None:
    frame = f'{{"type": "services", "ref": {ref}}}'
    assert refused(frame).ref is None
    assert peek_ref(frame) is None


def test_peek_ref() -> None:
    assert peek_ref('{"type": "services", "ref": 4}') == 4
    assert peek_ref('{"ref": "a"}') == "a"
    assert peek_ref('{"type": "services"}') is None
    assert peek_ref('{"ref": 4') is None
    assert peek_ref("[4]") is None
    assert peek_ref(nested(100_000)) is None


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        ('{"type": "nope"}', "$.type"),
        ('{"type": ""}', "$.type"),
        ('{"type": "welcome"}', "$.type"),
        ('{"type": "item.add", "items": []}', "$.type"),
        ('{"type": "services", "surprise": 1}', "$.surprise"),
        ('{"type": "services", "a`b": 1}', "$.a`b"),
        ('{"type": "recollect", "holds": [{"bucket_id": "b", "claim": 1, "x": 1}]}', "$.holds[0].x"),
        ('{"type": "recollect", "holds": [{"a`b": 1}]}', "$.holds[0].a`b"),
    ],
)
def test_unknown_types_and_fields(frame: str, path: str) -> None:
    refusal = refused(frame)
    assert isinstance(refusal.error, Unsupported)
    assert path_of(refusal.error) == path


def test_a_long_unknown_type_is_not_echoed_whole() -> None:
    assert len(refused(f'{{"type": "{"x" * 10_000}"}}').error.message) < 200


@pytest.mark.parametrize(
    ("codec", "frame"),
    [
        (CLIENT, '{"type": "join", "service": "s", "profile": {"a": %s}}'),
        (CLIENT, '{"type": "register", "screen_name": {"a": %s}}'),
        (CLIENT, '{"type": "unregister", "client_id": [%s]}'),
        (ADMIN, '{"type": "item.add", "items": [%s]}'),
    ],
)
def test_depth(codec: Codec[Request], frame: str) -> None:
    # The frame and what holds the value are two levels.
    codec.decode(frame % nested(MAX_DEPTH - 2))
    for levels in (MAX_DEPTH - 1, MAX_DEPTH, 200, 100_000):
        refusal = refused(frame % nested(levels), codec)
        assert isinstance(refusal.error, BadMessage)
        assert str(MAX_DEPTH) in refusal.error.message


def test_a_ref_beside_depth_is_kept() -> None:
    assert refused(f'{{"type": "register", "ref": 3, "screen_name": {nested(MAX_DEPTH)}}}').ref == 3


def test_results_too_deep_to_read_at_all() -> None:
    assert isinstance(refused(submit(nested(100_000))).error, BadMessage)


def test_brackets_in_strings_are_no_depth() -> None:
    text = json.dumps("[{" * 50 + '\\"' + "]" * 3)
    CLIENT.decode(f'{{"type": "report", "service": "s", "kind": "cannot_work", "text": {text}}}')


def test_width_is_no_depth() -> None:
    ADMIN.decode(f'{{"type": "item.add", "items": [{", ".join(["{}"] * 100)}]}}')


@given(plain, st.integers(0, 20))
def test_depth_is_counted_alike(value: object, more: int) -> None:
    """The quick count over the text and the walk over the values must agree."""
    for _ in range(more):
        value = [value]
    text = json.dumps(value)
    assert too_deep(text) == (forbidden(value) is not None)


@pytest.mark.parametrize("codec_and_frame", [
    (CLIENT, '{"type": "join", "service": "s", "profile": {"a": "x\\u0000"}}'),
    (CLIENT, '{"type": "join", "service": "s", "profile": {"x\\u0000": 1}}'),
    (CLIENT, '{"type": "join", "service": "s", "profile": {"a": [{"\\u0000": 1}]}}'),
    (CLIENT, '{"type": "join", "service": "s\\u0000"}'),
    (CLIENT, '{"type": "join", "service": "s", "x\\u0000": 1}'),
    (CLIENT, '{"type": "jo\\u0000in"}'),
    (CLIENT, '{"type": "services", "ref": "\\u0000"}'),
    (CLIENT, submit('[{"item": 1, "dm": "\\u0000"}]')),
    (CLIENT, submit('[{"item": 1, "\\u0000": 1}]')),
    (CLIENT, '{"type": "join", "service": "s", "profile": {"a": "\x00"}}'),
    (CLIENT, '{"type": "register", "screen_name": "\\u0000"}'),
    (ADMIN, '{"type": "item.add", "items": [{"key": "a\\u0000"}]}'),
    (ADMIN, '{"type": "item.delete", "keys": ["a\\u0000"]}'),
])  # fmt: skip
def test_u0000(codec_and_frame: tuple[Codec[Request], str]) -> None:
    codec, frame = codec_and_frame
    assert isinstance(refused(frame, codec).error, BadMessage)


def test_u0000_says_where() -> None:
    assert path_of(refused(submit('[{"item": 1}, {"item": 2, "dm": "\\u0000"}]')).error) == "$.results[1].dm"


def test_what_only_looks_like_u0000() -> None:
    message = CLIENT.decode('{"type": "join", "service": "s", "profile": {"a": "\\\\u0000"}}')
    assert message == client.Join(service="s", profile={"a": "\\u0000"})


@pytest.mark.parametrize("half", ["\\ud800", "\\udfff", "\\ud800x", "\\ud800\\u0041", "\\ud800\\ud800", "\ud800"])
@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "join", "service": "s", "profile": {"a": "%s"}}',
        '{"type": "join", "service": "s", "profile": {"%s": 1}}',
        '{"type": "report", "service": "s", "kind": "cannot_work", "text": "%s"}',
        '{"type": "%s"}',
        submit('[{"item": 1, "dm": "%s"}]'),
        submit('[{"item": 1, "%s": 1}]'),
    ],
)
def test_lone_surrogates(frame: str, half: str) -> None:
    assert isinstance(refused(frame % half).error, BadMessage)


def test_a_whole_pair_is_one_letter() -> None:
    message = CLIENT.decode('{"type": "join", "service": "s", "profile": {"a": "\\ud83d\\ude00"}}')
    assert message == client.Join(service="s", profile={"a": "\U0001f600"})


@pytest.mark.parametrize("bad", ["a\x00", "\ud800", ["\udfff"], {"a": {"b": "\x00"}}, {"\x00": 1}])
def test_forbidden_values(bad: object) -> None:
    assert isinstance(forbidden(bad), BadMessage)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000, "-" + "9" * 5000, "1" + "0" * 400])
def test_numbers_past_all_bounds(number: str) -> None:
    for field in ("claim", "ref"):
        frame = f'{{"type": "release", "bucket_id": "b", "{field}": {number}}}'
        assert isinstance(refused(frame).error, BadMessage)


def test_asking_for_too_much_is_no_error() -> None:
    message = CLIENT.decode('{"type": "ask", "service": "s", "count": 1' + "0" * 400 + "}")
    assert isinstance(message, client.Ask)
    assert message.count == 10**400


@pytest.mark.parametrize(("last", "good"), [('"t"', True), ("5", False)])
def test_of_a_key_that_stands_twice_the_last_counts(last: str, good: bool) -> None:
    frame = f'{{"type": "join", "ref": 1, "service": "s", "service": {last}, "ref": 2}}'
    if good:
        assert CLIENT.decode(frame) == client.Join(ref=2, service="t")
    else:
        assert refused(frame).ref == 2


def test_a_second_type_is_refused() -> None:
    assert isinstance(refused('{"type": "join", "service": "t", "type": "leave"}').error, BadMessage)
    assert isinstance(refused('{"type": "leave", "service": "t", "type": "join"}').error, BadMessage)


json_text = plain.map(json.dumps)
odd_value = st.one_of(
    json_text,
    st.sampled_from(['"\\ud800"', '"\\u0000"', "1e999", "9" * 5000, nested(20), nested(3000), "NaN", "-0", "1E2"]),
)
FIELDS = sorted({field for one in (*client.ANSWERS, *admin.ANSWERS) for field in one.__struct_fields__})
TYPES = sorted({tag_of(one) for one in (*client.ANSWERS, *admin.ANSWERS)})
almost_a_message = st.builds(
    lambda kind, fields: "{" + ", ".join([f'"type": "{kind}"', *(f'"{a}": {b}' for a, b in fields)]) + "}",
    st.sampled_from(TYPES),
    st.lists(st.tuples(st.sampled_from([*FIELDS, "x"]), odd_value), max_size=5),
)
any_object = st.dictionaries(st.sampled_from([*FIELDS, "type"]) | st.text(max_size=3), plain).map(json.dumps)


@given(st.one_of(json_text, any_object, almost_a_message, st.text(max_size=40)))
@example(nested(100_000))
@example(submit(nested(5000) + ', "\\u0000"'))
@example(submit('["\\u0000", ' + nested(5000) + "]"))
def test_a_frame_is_a_message_or_a_refusal(frame: str) -> None:
    for codec in (CLIENT, ADMIN):
        refusal = None
        try:
            message = codec.decode(frame)
        except Undecodable as undecodable:
            refusal = undecodable
        if refusal is None:
            assert type(message) is codec.types[json.loads(frame)["type"]]
            assert encode(message)
        else:
            assert type(refusal.error) in (BadMessage, Unsupported)
            assert path_of(refusal.error).startswith("$")
            answer: dict[str, Any] = json.loads(error_frame(refusal.error, refusal.ref))
            assert answer["code"] == refusal.error.code


WIDE = "[" + ",".join(["[]"] * 330_000) + "]"


@pytest.fixture(scope="session")
def seconds_of_objects() -> float:
    """Seconds that a megabyte takes when it is made into objects and each of them is looked at."""
    return min(timeit.repeat(lambda: forbidden(json.loads(WIDE)), number=1, repeat=2))


@pytest.mark.measured
@pytest.mark.parametrize(
    "frame",
    [
        f'{{"type": "hello", "x": {WIDE}}}',
        f'{{"type": "nope", "x": {WIDE}}}',
        f'{{"type": "join", "service": "s", "profile": {{"a": {WIDE}}}}}',
        f'{{"type": "join", "service": "s", "profile": {{"a": {WIDE}, "b": "\\u0000"}}}}',
        f'{{"type": "nope", "x": {WIDE}, "y": {nested(20)}}}',
        f'{{"type": {WIDE}}}',
        f'{{"type": "nope", "ref": {WIDE}}}',
        f'{{"type": "submit", "x": 1, "results": {WIDE}}}',
        submit(WIDE[:-1]),
        submit(f'["\\u0000", {WIDE}]'),
    ],
    ids=lambda frame: f"{frame[:40]}…{frame[-12:]}",
)
def test_a_megabyte_that_is_refused_is_not_made_into_objects(frame: str, seconds_of_objects: float) -> None:
    """All others wait while a frame is read."""
    assert min(timeit.repeat(lambda: refused(frame), number=1, repeat=4)) < seconds_of_objects / 6


def test_only_a_submit_has_many_values() -> None:
    wide = ",".join(["true"] * (MAX_PARTS - 2))
    frame = '{"type": "join", "ref": 7, "service": "s", "profile": {"a": [%s]}}'
    refusal = refused(frame % wide)
    assert isinstance(refusal.error, BadMessage)
    assert path_of(refusal.error) == "$"
    assert refusal.ref == 7
    CLIENT.decode(frame % ",".join(["true"] * (MAX_PARTS - 6)))
    CLIENT.decode(submit(f"[{wide},{wide}]"))


def test_spaces_and_letters_are_no_values() -> None:
    CLIENT.decode('{"type": "services"}'.ljust(1_000_000))
    assert isinstance(refused(f'{{"type": "{"x" * 1_000_000}"}}').error, Unsupported)
    assert path_of(refused(f'{{"type": "join", "service": "{"x" * 1_000_000}"}}').error) == "$.service"


def test_the_longest_lists_are_not_large() -> None:
    holds = [{"bucket_id": "00000000-0000-4000-8000-000000000000", "claim": 2**53 - 1}] * 1000
    CLIENT.decode(json.dumps({"type": "recollect", "holds": holds}))
