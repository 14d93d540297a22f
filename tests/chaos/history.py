"""All that those who took part in a run saw: requests with their answers, pushes, sessions, faults.

All times are seconds of this machine's monotonic clock, which its processes share.  An event is written before what it
tells of can have an effect, and in one call, so that a process that is killed has told all that it began.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

Operation = Literal["ask", "submit", "release"]


class Began(Struct, frozen=True, tag="began"):
    """A session was welcomed; `asked_at` is when its `hello` was sent, which may be long before that is noted."""

    at: float
    client: str
    session: str
    asked_at: float | None = None


class Ended(Struct, frozen=True, tag="ended"):
    """The client knows that its session is over."""

    at: float
    client: str
    session: str
    why: str


class Given(Struct, frozen=True, tag="given"):
    """A push `bucket` arrived."""

    at: float
    client: str
    session: str
    bucket: str
    claim: int
    items: list[int]


class Lost(Struct, frozen=True, tag="lost"):
    """A push `bucket_lost` arrived."""

    at: float
    client: str
    session: str
    bucket: str
    claim: int
    reason: str


class Invoked(Struct, frozen=True, tag="invoked"):
    """A request is about to be sent; `values` are the results of a submit by item."""

    at: float
    call: str
    client: str
    session: str
    operation: Operation
    bucket: str = ""
    claim: int = 0
    values: dict[int, str] = {}
    final: bool = False


class Ok(Struct, frozen=True, tag="ok"):
    """The answer to a request; the counts are those of `stored`."""

    at: float
    call: str
    stored: int = 0
    discarded: int = 0
    closed: bool = False
    duplicate: bool = False


class Fail(Struct, frozen=True, tag="fail"):
    """A refusal: nothing was done."""

    at: float
    call: str
    code: str


class Unknown(Struct, frozen=True, tag="unknown"):
    """No answer, or one that leaves open whether it was done."""

    at: float
    call: str
    why: str


class Fault(Struct, frozen=True, tag="fault"):
    """Something was broken on purpose, from `at` to `until`."""

    at: float
    until: float
    kind: str
    target: str


Event: TypeAlias = Began | Ended | Given | Lost | Invoked | Ok | Fail | Unknown | Fault
End: TypeAlias = Ok | Fail | Unknown

_decode = msgspec.json.Decoder(Event).decode


class Recorder:
    """Appends events to a file of one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, event: Event) -> None:
        """Write an event; it outlives the process, though not the machine."""
        os.write(self._file, msgspec.json.encode(event) + b"\n")

    @staticmethod
    def now() -> float:
        return monotonic()


class Follower:
    """Reads what recorders write into the files of a folder, while they do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        """Bytes of each file that were read."""

    def new_events(self) -> list[Event]:
        """Return the events since the last call; those of one file are in order."""
        found = list[Event]()
        for path in sorted(self._folder.glob("*.history")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")  # the last line may not be whole yet
            self._read[path] = self._read.get(path, 0) + len(whole) + len(end)
            found += [_decode(line) for line in whole.splitlines()]
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """One request; `end` is None where the process that made it was killed."""

    invoked: Invoked
    end: End | None

    @property
    def refused(self) -> bool:
        """Whether it is sure that nothing was done."""
        return isinstance(self.end, Fail)


@dataclass(slots=True)
class History:
    """All events of a run, each kind in the order of time."""

    began: list[Began] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """Sort events, and put answers to their requests."""
        history, begun, ends = cls(), list[Invoked](), dict[str, End]()
        for event in sorted(events, key=lambda event: event.at):
            match event:
                case Began():
                    history.began.append(event)
                case Ended():
                    history.ended.append(event)
                case Given():
                    history.given.append(event)
                case Lost():
                    history.lost.append(event)
                case Fault():
                    history.faults.append(event)
                case Invoked():
                    begun.append(event)
                case _:
                    ends.setdefault(event.call, event)

        history.calls = [Call(invoked, ends.get(invoked.call)) for invoked in begun]
        return history

    @classmethod
    def read(cls, files: Iterable[Path]) -> History:
        """Read the files that recorders wrote."""
        return cls.of(event for file in files for event in _events(file))


def _events(file: Path) -> Iterator[Event]:
    for line in file.read_bytes().splitlines():
        yield _decode(line)
