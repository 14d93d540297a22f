"""The series find out of a history how long a fault kept clients from their work."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.history import Began, Ended, Event, Fault, Follower, History, Invoked, Ok, Recorder
from tests.chaos.series import all_at_work, all_back


def submit(at: float, client: str, session: str, answered: float) -> list[Event]:
    call = f"{client}{at}"
    return [Invoked(at, call, client, session, "submit", "bucket", 1, {1: "token"}), Ok(answered, call, 1)]


def test_all_are_at_work_once_the_last_had_something_stored_that_it_sent_after_the_fault() -> None:
    events = [
        *submit(9.0, "ada", "a", 20.0),  # sent before
        *submit(11.0, "ada", "a", 12.0),
        *submit(13.0, "bob", "b", 15.5),
        *submit(14.0, "bob", "b", 16.5),
        Fault(10.0, 17.0, "kill_postgres", "primary"),
    ]
    assert all_at_work(History.of(events)) == [5.5]


def test_all_are_back_once_the_last_that_was_turned_away_is_welcomed_again() -> None:
    events: list[Event] = [
        Began(1.0, "ada", "a1"),
        Began(1.0, "bob", "b1"),
        Began(1.0, "eve", "e1"),  # who is not turned away
        Ended(11.0, "ada", "a1", "1012"),
        Began(12.0, "ada", "a2"),
        Ended(11.5, "bob", "b1", "1012"),
        Began(16.5, "bob", "b2"),
        Fault(10.0, 20.0, "restart", "node0"),
    ]
    assert all_back(History.of(events)) == [6.5]


def test_who_never_comes_back_is_missed() -> None:
    events: list[Event] = [
        Began(1.0, "ada", "a1"),
        Ended(11.0, "ada", "a1", "1012"),
        Fault(10.0, 20.0, "restart", "node0"),
    ]
    assert all_back(History.of(events)) == [float("inf")]


def test_a_history_is_followed_line_by_line(tmp_path: Path) -> None:
    follower, path = Follower(tmp_path), tmp_path / "one.history"
    recorder, began = Recorder(path), Began(1.0, "ada", "a")
    assert follower.new_events() == []
    recorder.note(began)
    assert follower.new_events() == [began]

    recorder.note(began)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert follower.new_events() == []
    path.write_bytes(whole)
    assert follower.new_events() == [began]
