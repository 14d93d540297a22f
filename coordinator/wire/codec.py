"""Decode frames into messages, and encode messages into frames.

A good frame is read in one pass: msgspec checks the shape while it parses.  Only a frame that fails is parsed a
second time, to tell the peer what was wrong and where.
"""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from coordinator.errors import BadMessage, PeerError, Unsupported
from coordinator.wire.client import Submit
from coordinator.wire.frames import MAX_DEPTH, Error, Ref

R = TypeVar("R", bound=Struct)

_PATH = re.compile(r"^(?P<fault>.*?) - at `(?P<path>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)

_encoder = msgspec.json.Encoder()
_plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class Undecodable(Exception):
    """A frame that is refused, with the `ref` that its answer should carry, if one could be read."""

    def __init__(self, error: PeerError, ref: Ref | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.ref = ref


class Codec(Generic[R]):
    """Decodes the requests of one channel, which are of the given types."""

    def __init__(self, *requests: type[R]) -> None:
        union: Any = requests[0]
        for request in requests[1:]:
            union = union | request
        self.types: dict[str, type[R]] = {tag_of(request): request for request in requests}
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(union)

    def decode(self, frame: str) -> R:
        """Decode one request.

        Raises:
            Undecodable: with a BadMessage or Unsupported that names the fault and its place.
        """
        try:
            message = self._decoder.decode(frame)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as failure:
            raise self._explain(frame, failure) from None

        # The raw results of a submit are the largest frames: their depth is checked where they are read.
        if "\\u0000" in frame or (not isinstance(message, Submit) and too_deep(frame)):
            self._refuse_forbidden(frame)
        return message

    def _refuse_forbidden(self, frame: str) -> None:
        """Check for what no type can express: too deep a nesting, and U+0000 in any string."""
        generic = _parse(frame)
        fault = forbidden(generic)
        if fault is not None:
            raise Undecodable(fault, _ref(generic))

    def _explain(self, frame: str, failure: Exception) -> Undecodable:
        try:
            generic = _parse(frame)
        except Undecodable as undecodable:
            return undecodable

        ref = _ref(generic)
        if not isinstance(generic, dict):
            return Undecodable(BadMessage("A message is a JSON object.", detail={"path": "$"}), ref)
        # The walk over every value is slow, and made only for frames that may need it.
        fault = forbidden(generic) if "\\u0000" in frame or too_deep(frame) else None
        if fault is not None:
            return Undecodable(fault, ref)

        kind = generic.get("type")
        if not isinstance(kind, str):
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
        return _ref(_parse(frame))
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


_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def too_deep(text: str, most: int = MAX_DEPTH) -> bool:
    """Return whether a JSON text nests deeper than `most` levels."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for token in _TOKENS.findall(text):
        if token in ("[", "{"):
            depth += 1
            if depth > most:
                return True
        elif token in ("]", "}"):
            depth -= 1
    return False


def _parse(frame: str) -> Any:
    try:
        return _plain.decode(frame)
    except RecursionError:
        raise Undecodable(
            BadMessage(f"A message nests no deeper than {MAX_DEPTH}.", detail={"path": "$"}), None
        ) from None
    except (msgspec.MsgspecError, UnicodeError) as failure:
        raise Undecodable(BadMessage(f"Not JSON: {failure}.", detail={"path": "$"}), None) from None


def _ref(generic: object) -> Ref | None:
    if isinstance(generic, dict):
        ref = generic.get("ref")
        if isinstance(ref, int) and not isinstance(ref, bool) and -(2**63) <= ref < 2**63:
            return ref
        if isinstance(ref, str) and len(ref) <= 64 and "\x00" not in ref:
            return ref
    return None
