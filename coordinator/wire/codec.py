"""Frames to messages and back.

One pass for the good frame: msgspec checks the shape while it parses.  Only a frame that fails is looked at a
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

_PATH = re.compile(r"^(?P<what>.*?) - at `(?P<path>[^`]*)`$", re.DOTALL)
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
    """Reads the requests of one channel.

    `requests` is the channel's union of request types.
    """

    def __init__(self, *requests: type[R]) -> None:
        union: Any = requests[0]
        for one in requests[1:]:
            union = union | one
        self.types: dict[str, type[R]] = {tag_of(one): one for one in requests}
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(union)

    def decode(self, frame: str) -> R:
        """One request.

        Raises:
            Undecodable: with a BadMessage or Unsupported that says where.
        """
        try:
            message = self._decoder.decode(frame)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as failure:
            raise self._explain(frame, failure) from None
        # The raw results of a submit are the dearest frames: whoever reads them checks their depth.
        if "\\u0000" in frame or (not isinstance(message, Submit) and too_deep(frame)):
            self._walk(frame)
        return message

    def _walk(self, frame: str) -> None:
        """Refuse what no type can tell: depth, and U+0000 in any string."""
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
        # The walk over every value is dear, and only for frames that may need it.
        fault = forbidden(generic) if "\\u0000" in frame or too_deep(frame) else None
        if fault is not None:
            return Undecodable(fault, ref)
        kind = generic.get("type")
        if not isinstance(kind, str):
            return Undecodable(BadMessage("A message has a string as its type.", detail={"path": "$.type"}), ref)
        if kind not in self.types:
            return Undecodable(Unsupported(f"There is no request {kind[:64]!r} here.", detail={"path": "$.type"}), ref)
        what, path = where(failure)
        unknown = _UNKNOWN.match(what)
        if unknown:
            return Undecodable(Unsupported(f"{what}.", detail={"path": path}), ref)
        return Undecodable(BadMessage(f"{what}.", detail={"path": path}), ref)


def encode(message: Struct) -> bytes:
    """One frame, in UTF-8."""
    return _encoder.encode(message)


def error_frame(error: PeerError, ref: Ref | None = None) -> bytes:
    """The `error` answer for what a step raised."""
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
    """The `type` of a message class on the wire."""
    return str(message.__struct_config__.tag)


def peek_ref(frame: str) -> Ref | None:
    """The `ref` of a frame that is refused unread, if it can be had."""
    try:
        return _ref(_parse(frame))
    except Undecodable:
        return None


def where(failure: Exception) -> tuple[str, str]:
    """What msgspec found wrong, and the path (like `$.results[3].dm`) of it."""
    text = str(failure)
    found = _PATH.match(text)
    what, path = (found["what"], found["path"]) if found else (text, "$")
    inner = _UNKNOWN.match(what) or _MISSING.match(what)
    if inner:
        path = f"{path}.{inner['field']}"
    return what, path


def forbidden(value: object, path: str = "$") -> PeerError | None:
    """What no frame may hold wherever it stands: nesting past MAX_DEPTH, U+0000, lone surrogates."""
    stack: list[tuple[object, str, int]] = [(value, path, 1)]
    while stack:
        one, at, depth = stack.pop()
        if isinstance(one, str):
            if "\x00" in one or any("\ud800" <= letter <= "\udfff" for letter in one):
                return BadMessage("U+0000 and lone surrogates are refused.", detail={"path": at})
        elif isinstance(one, dict | list):
            if depth > MAX_DEPTH:
                return BadMessage(f"A message nests no deeper than {MAX_DEPTH}.", detail={"path": at})
            if isinstance(one, dict):
                for key, inner in one.items():
                    if "\x00" in key:
                        return BadMessage("U+0000 is refused.", detail={"path": at})
                    stack.append((inner, f"{at}.{key}", depth + 1))
            else:
                stack.extend((inner, f"{at}[{n}]", depth + 1) for n, inner in enumerate(one))
    return None


_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def too_deep(text: str, most: int = MAX_DEPTH) -> bool:
    """Whether a text, which is JSON, nests deeper than `most`."""
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
