"""Nothing in the package is of a kind that makes it hard to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.structure import COUNTS, TESTS, Source, sources, waits_that_lose_cancellations, weak_docstrings

pytestmark = pytest.mark.xdist_group("structure")  # the package is read once


@pytest.fixture(scope="session")
def found() -> list[Source]:
    return sources()


@pytest.fixture(scope="session")
def found_in_tests() -> list[Source]:
    return sources(TESTS)


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count.__name__)
def test_there_is_none(count: Callable[[list[Source]], Iterator[str]], found: list[Source]) -> None:
    assert not list(count(found))


def test_docstrings_of_tests_begin_with_a_verb_or_a_noun_too(found_in_tests: list[Source]) -> None:
    assert not list(weak_docstrings(found_in_tests))


def test_tests_lose_no_cancellations(found_in_tests: list[Source]) -> None:
    """A volunteer that a test has ended ends."""
    own = {"structure.py", "test_structure.py"}  # they name what they look for
    assert not list(waits_that_lose_cancellations([source for source in found_in_tests if source.path not in own]))


def test_the_counts_see_what_they_count() -> None:
    bad = (
        "BATCH = 1\n\nclass Peer:\n    def __init__(self, a, b, c, d, e, f, g, h):\n        pass\n\n"
        'class Other:\n    """What it is."""\n    fields: dict[str, Any]\n'
        + "def f():\n    x = 1\n"
        + "    x += 1\n" * 70
        + "    await asyncio.wait_for(x, 1)\n"
        + "x = 1\n" * 400
    )
    sources_of_two = [Source.of("flow/one.py", bad), Source.of("flow/two.py", bad.replace("BATCH = 1", "BATCH = 2"))]
    silent = {count.__name__ for count in COUNTS if not list(count(sources_of_two))}
    assert silent == {"two_way_ties", "import_cycles"}

    tied = [
        Source.of("flow/one.py", "from coordinator.serve import two\n"),
        Source.of("serve/two.py", "from coordinator.flow import one\n"),
    ]
    assert {"two_way_ties", "import_cycles"} <= {count.__name__ for count in COUNTS if list(count(tied))}


def test_tests_of_a_group_are_one_workers(request: pytest.FixtureRequest, worker_id: str) -> None:
    """As with a pytest whose names of tests pytest-xdist can add to, which is how it tells groups."""
    assert request.node.nodeid.endswith("@structure") == (worker_id != "master")
