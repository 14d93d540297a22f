"""Decode frames into messages, and encode messages into frames.

A good frame is read in one pass: msgspec checks the shape while it parses.  Of a frame that fails only the head is
read a second time, to tell the peer what was wrong and where.  No frame is made into objects but those of its type
and, if it is small, to find the place of what is forbidden: a megabyte of `[],[],…` takes a third of a second so, and
all others wait for it.
"""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from coordinator.errors import BadMessage, PeerError, Unsupported
from coordinator.wire.frames import MAX_DEPTH, Error, Ref

R = TypeVar("R", bound=Struct)

_PATH = re.compile(r"^(?P<fault>.*?) - at `(?P<path>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)

MAX_PARTS = 20_000
"""Commas and opening brackets in a frame that is not of the type with the large contents.

A thousand `holds` have 3,000.
"""

MAX_WALKED = 64 * 1024
"""Characters up to which the place is told of what is forbidden, by a walk over all values."""

_encoder = msgspec.json.Encoder()
_plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class _Head(Struct):
    """The fields of a refused frame that are read; everything else in it is passed over."""

    type: msgspec.Raw = msgspec.Raw(b"null")
    ref: msgspec.Raw = msgspec.Raw(b"null")


_head = msgspec.json.Decoder(_Head)


class Undecodable(Exception):
    """A frame that is refused, with the `ref` that its answer should carry, if one could be read."""

    def __init__(self, error: PeerError, ref: Ref | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.ref = ref


class Codec(Generic[R]):
    """Decodes the requests of one channel, which are of the given types.

    The depth of `deep` ones, which are the largest, is checked where their contents are read.
    """

    def __init__(self, *requests: type[R], deep: type[R] | None = None) -> None:
        union: Any = requests[0]
        for request in requests[1:]:
            union = union | request
        self.types: dict[str, type[R]] = {tag_of(request): request for request in requests}
        self._deep = deep
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(union)

    def decode(self, frame: str) -> R:
        """Decode one request.

        Raises:
            Undecodable: with a BadMessage or Unsupported that names the fault and its place.
        """
        if self._deep is not None and len(frame) > MAX_WALKED and sum(map(frame.count, ",[{")) > MAX_PARTS:
            self._refuse_wide(frame)
        try:
            message = self._decoder.decode(frame)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as failure:
            raise self._explain(frame, failure) from None

        fault = _forbidden_in(frame, deep=type(message) is self._deep)
        if fault is not None:
            raise Undecodable(fault, peek_ref(frame))
        return message

    def _refuse_wide(self, frame: str) -> None:
        """Refuse a frame of many values that is not of the type with the large contents."""
        assert self._deep is not None
        kind, ref = _type_and_ref(frame)
        if kind in self.types and kind != tag_of(self._deep):
            fault = f"A {kind} has {MAX_PARTS} commas and opening brackets at most."
            raise Undecodable(BadMessage(fault, detail={"path": "$"}), ref)

    def _explain(self, frame: str, failure: Exception) -> Undecodable:
        try:
            kind, ref = _type_and_ref(frame)
        except Undecodable as undecodable:
            return undecodable

        fault = _forbidden_in(frame, deep=False)
        if fault is not None:
            return Undecodable(fault, ref)
        if kind is None:
            return Undecodable(BadMessage("A message has a string as its type.", detail={"path": "$.type"}), ref)
        if kind not in self.types:
            return Undecodable(Unsupported(f"There is no request {kind[:64]!r} here.", detail={"path": "$.type"}), ref)

        message, path = shape_fault(failure)
        error_type = Unsupported if _UNKNOWN.match(message) else BadMessage
        return Undecodable(error_type(f"{message}.", detail={"path": path}), ref)


def encode(message: Struct) -> bytes:
    """Return the frame of a message, in UTF-8."""
    return _encoder.encode(message)


def error_frame(error: PeerError, ref: Ref | None = None) -> bytes:
    """Return the `error` frame that answers a request with this error."""
    frame = Error(code=error.code, message=error.message)
    if ref is not None:
        frame.ref = ref
    if error.detail is not None:
        frame.detail = error.detail
    if error.retry_after is not None:
        frame.retry_after = error.retry_after
    if error.scope is not None:
        frame.scope = error.scope
    return _encoder.encode(frame)


def tag_of(message: type[Struct]) -> str:
    """Return the `type` of a message class on the wire."""
    return str(message.__struct_config__.tag)


def peek_ref(frame: str) -> Ref | None:
    """Return the `ref` of a frame that is refused unread; None if it has none, or it cannot be read."""
    try:
        return _type_and_ref(frame)[1]
    except Undecodable:
        return None


def shape_fault(failure: Exception) -> tuple[str, str]:
    """Return the fault that msgspec found, in its words, and the path (like `$.results[3].dm`) of it."""
    text = str(failure)
    match = _PATH.match(text)
    fault, path = (match["fault"], match["path"]) if match else (text, "$")
    field = _UNKNOWN.match(fault) or _MISSING.match(fault)
    if field:
        path = f"{path}.{field['field']}"
    return fault, path


def forbidden(value: object, path: str = "$") -> PeerError | None:
    """Find content that no field may have: nesting past MAX_DEPTH, U+0000, lone surrogates.

    Returns the error that refuses the frame, or None.
    """
    stack: list[tuple[object, str, int]] = [(value, path, 1)]
    while stack:
        part, at, depth = stack.pop()
        if isinstance(part, str):
            if "\x00" in part or any("\ud800" <= letter <= "\udfff" for letter in part):
                return BadMessage("U+0000 and lone surrogates are refused.", detail={"path": at})

        elif isinstance(part, dict | list):
            if depth > MAX_DEPTH:
                return BadMessage(f"A message nests no deeper than {MAX_DEPTH}.", detail={"path": at})
            if isinstance(part, dict):
                for key, inner in part.items():
                    if "\x00" in key:
                        return BadMessage("U+0000 is refused.", detail={"path": at})
                    stack.append((inner, f"{at}.{key}", depth + 1))
            else:
                stack.extend((inner, f"{at}[{n}]", depth + 1) for n, inner in enumerate(part))
    return None


def _forbidden_in(frame: str, *, deep: bool) -> PeerError | None:
    """Check a frame for what no type can express: U+0000 in any string, and, if it is not `deep`, too deep a nesting.

    The place is told for small frames only.
    """
    # Two backslashes are one that escapes nothing; what stands before `u0000` then is no escape of it.
    holds_nul = "\\u0000" in frame and "\\u0000" in frame.replace("\\\\", "")
    nests = not deep and too_deep(frame)
    if not (holds_nul or nests):
        return None

    if len(frame) <= MAX_WALKED:
        return forbidden(_parse(frame))
    fault = "U+0000 is refused." if holds_nul else f"A message nests no deeper than {MAX_DEPTH}."
    return BadMessage(fault, detail={"path": "$"})


_AS_ARRAYS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(text: str, most: int = MAX_DEPTH) -> bool:
    """Return whether a JSON text nests deeper than `most` levels."""
    if text.count("[") + text.count("{") <= most:
        return False

    # Without its escapes, every other part between quotes is a string.
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    brackets = outside.encode("utf-8", "surrogatepass").translate(_AS_ARRAYS, _NO_BRACKETS)
    for _ in range(most):
        # What holds nothing goes, so a round takes one level from the bottom.
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _parse(frame: str) -> Any:
    return _decode(_plain, frame)


def _type_and_ref(frame: str) -> tuple[str | None, Ref | None]:
    """Read the head of a frame; a type that is no string is None.

    Raises:
        Undecodable: the frame is no JSON object, or its type cannot be read.
    """
    head = _decode(_head, frame)
    kind = _decode(_plain, head.type) if bytes(head.type)[:1] == b'"' else None
    try:
        ref = _ref(_plain.decode(head.ref)) if len(bytes(head.ref)) <= MAX_REF_BYTES else None
    except (msgspec.MsgspecError, RecursionError):
        ref = None
    return kind, ref


def _decode(decoder: msgspec.json.Decoder[Any], text: str | msgspec.Raw) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise Undecodable(
            BadMessage(f"A message nests no deeper than {MAX_DEPTH}.", detail={"path": "$"}), None
        ) from None
    except msgspec.ValidationError:
        raise Undecodable(BadMessage("A message is a JSON object.", detail={"path": "$"}), None) from None
    except (msgspec.MsgspecError, UnicodeError) as failure:
        raise Undecodable(BadMessage(f"Not JSON: {failure}.", detail={"path": "$"}), None) from None


MAX_REF_BYTES = 512
"""Bytes of a `ref` as it is written: 64 characters, each perhaps as an escape, and the quotes."""


def _ref(value: object) -> Ref | None:
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, str) and len(value) <= 64 and "\x00" not in value:
        return value
    return None
