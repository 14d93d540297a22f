"""Decides whether a run kept the promises, by its history and the rows of its database.  Pure.

Each rule is a function that yields its violations; `check` runs them all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.history import Call, Given, History, Ok
from tests.chaos.rows import Rows

NOTICED_WITHIN = 3.0
"""Seconds in which a session must have heard, or be over, once another has its bucket; a poll takes one second."""

COULD_BE_LATER = frozenset({"rate_limited", "quota", "draining", "out_of_order", "not_registered"})
"""Refusals of a repeat that say nothing of whether it is known: the session, not the claim, is the matter."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept: the name of its rule, and a sentence."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run: `innocent` are the clients that nothing was done to and that did nothing wrong, `added` the keys that
    were acknowledged as added."""

    history: History
    rows: Rows
    innocent: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    submits: list[Call] = field(init=False)
    given_by_bucket: dict[str, list[Given]] = field(init=False)
    calls_by_session: dict[str, list[Call]] = field(init=False)

    def __post_init__(self) -> None:
        by_bucket, by_session = defaultdict[str, list[Given]](list), defaultdict[str, list[Call]](list)
        for given in self.history.given:
            by_bucket[given.bucket].append(given)
        for call in self.history.calls:
            by_session[call.invoked.session].append(call)

        object.__setattr__(self, "submits", [c for c in self.history.calls if c.invoked.operation == "submit"])
        object.__setattr__(self, "given_by_bucket", by_bucket)
        object.__setattr__(self, "calls_by_session", by_session)

    def acknowledged(self) -> Iterator[tuple[Call, Ok]]:
        """Submits that were answered with `stored`, with the answer."""
        for call in self.submits:
            if isinstance(call.end, Ok):
                yield call, call.end


Rule = Callable[[Run], Iterator[str]]


def check(run: Run) -> list[Violation]:
    """Find every promise that was not kept."""
    return [Violation(rule.__name__, text) for rule in RULES for text in rule(run)]


# Holders


def one_claim_one_session(run: Run) -> Iterator[str]:
    """A claim number stands for one handing-out, of one bucket to one session."""
    places: dict[int, tuple[str, str]] = {}
    for given in run.history.given:
        place = given.bucket, given.session
        if places.setdefault(given.claim, place) != place:
            yield f"claim {given.claim} of {given.bucket} went to {given.client} and to another session"


def claims_end_before_the_next(run: Run) -> Iterator[str]:
    """Every claim but the newest of its bucket has ended, and the bucket names the newest."""
    newest: dict[str, int] = {}
    for claim in run.rows.claims:
        newest[claim.bucket] = max(newest.get(claim.bucket, 0), claim.claim)
    for claim in run.rows.claims:
        if claim.ended is None and claim.claim != newest[claim.bucket]:
            yield f"claim {claim.claim} of {claim.bucket} by {claim.client} was never ended, and others followed"

    for bucket in run.rows.buckets:
        if bucket.claim != newest.get(bucket.bucket, 0):
            yield f"{bucket.bucket} names claim {bucket.claim}, and {newest.get(bucket.bucket, 0)} is its newest"


def claim_numbers_grow(run: Run) -> Iterator[str]:
    """A session that asked to begin after a claim of a bucket was seen gets only higher ones of it."""
    began = {event.session: event.at if event.asked_at is None else event.asked_at for event in run.history.began}
    for bucket, handouts in run.given_by_bucket.items():
        for earlier in handouts:
            for later in handouts:
                if began.get(later.session, 0.0) > earlier.at and later.claim <= earlier.claim:
                    yield f"{bucket}: claim {later.claim} came after {earlier.claim}"


def one_holder_at_a_time(run: Run) -> Iterator[str]:
    """Nobody gets a bucket while its holder still works on it, in a session that goes on and was told nothing."""
    let_go = _let_go(run)
    for handouts in run.given_by_bucket.values():
        for held in handouts:
            since = [later.at for later in handouts if later.claim > held.claim]
            if since and (held.bucket, held.claim) not in let_go and _lives_on(run, held.session, min(since)):
                yield f"{held.bucket}: {held.client} holds claim {held.claim} in a session that lives, others took it"


def _let_go(run: Run) -> set[tuple[str, int]]:
    """Claims that their holders were told to be over, or may have ended themselves."""
    told = {(lost.bucket, lost.claim) for lost in run.history.lost}
    for call in run.history.calls:
        invoked = call.invoked
        ends = invoked.operation == "release" or invoked.final or (isinstance(call.end, Ok) and call.end.closed)
        if ends and invoked.operation != "ask" and not call.refused:
            told.add((invoked.bucket, invoked.claim))
    return told


def _lives_on(run: Run, session: str, since: float) -> bool:
    """Whether the node answers the session two requests that were made well after a moment, and apart.

    Two, since one that has lost its lease while it stood still may answer what had queued before it looks.
    """
    answers = [
        call.invoked.at
        for call in run.calls_by_session[session]
        if isinstance(call.end, Ok) and call.invoked.at > since + NOTICED_WITHIN
    ]
    return bool(answers) and max(answers) - min(answers) > NOTICED_WITHIN


def stale_claims_do_nothing(run: Run) -> Iterator[str]:
    """A submit or release counts only while its claim is the newest of the bucket."""
    for call in run.history.calls:
        invoked = call.invoked
        if invoked.operation == "ask" or not isinstance(call.end, Ok) or call.end.duplicate:
            continue
        for given in run.given_by_bucket.get(invoked.bucket, ()):
            if given.claim > invoked.claim and given.at < invoked.at and (call.end.stored or not invoked.values):
                yield (
                    f"{invoked.operation} of {invoked.client} counted under claim {invoked.claim} of {invoked.bucket}, "
                    f"when {given.client} had claim {given.claim}"
                )


# Results


def acknowledged_is_stored(run: Run) -> Iterator[str]:
    """Acknowledged results are there, under their claim and as they were sent, but for those said to be discarded."""
    stored = {(row.item, row.claim): row.value for row in run.rows.results}
    for call, answer in run.acknowledged():
        invoked = call.invoked
        found = [stored.get((item, invoked.claim)) for item in invoked.values]
        missing = found.count(None)
        if missing > answer.discarded:
            yield f"{missing} of {len(found)} results of {invoked.client} under claim {invoked.claim} are not there"
        if any(row not in (None, value) for row, value in zip(found, invoked.values.values(), strict=True)):
            yield f"a result of {invoked.client} under claim {invoked.claim} is not as it was sent"


def stored_once(run: Run) -> Iterator[str]:
    """An item has one result."""
    counts = Counter(row.item for row in run.rows.results)
    for item, count in counts.items():
        if count > 1:
            yield f"item {item} has {count} results"


def nothing_from_nowhere(run: Run) -> Iterator[str]:
    """Each result was sent, by the client of its claim, in a submit that was neither refused nor called a repeat."""
    holders = {claim.claim: claim.client for claim in run.rows.claims}
    sent: dict[tuple[int, int, str], set[str]] = defaultdict(set)
    for call in run.submits:
        if not call.refused and not (isinstance(call.end, Ok) and call.end.duplicate):
            for item, value in call.invoked.values.items():
                sent[item, call.invoked.claim, value].add(call.invoked.client)

    for row in run.rows.results:
        if holders.get(row.claim) not in sent.get((row.item, row.claim, row.value), ()):
            yield f"the result of item {row.item} under claim {row.claim} was sent by nobody, or refused"


def repeats_are_known(run: Run) -> Iterator[str]:
    """A repeat of what was acknowledged is told so, and other content under the same claim is refused."""
    known: dict[tuple[int, int], tuple[float, str]] = {}
    for call, answer in run.acknowledged():
        if not answer.discarded:
            for item, value in call.invoked.values.items():
                known.setdefault((item, call.invoked.claim), (answer.at, value))

    for call in run.submits:
        invoked = call.invoked
        before = {item: known.get((item, invoked.claim)) for item in invoked.values}
        if not before or any(entry is None or entry[0] >= invoked.at for entry in before.values()):
            continue
        same = all(entry is not None and entry[1] == invoked.values[item] for item, entry in before.items())
        code = getattr(call.end, "code", None)
        if same and code is not None and code not in COULD_BE_LATER:
            yield f"{invoked.client} repeated what was stored under claim {invoked.claim}, and was told {code}"
        if not same and isinstance(call.end, Ok):
            yield f"{invoked.client} sent other results under claim {invoked.claim}, and they were taken"


# Counts and blame


def counted_once(run: Run) -> Iterator[str]:
    """A claim counts its results; no client is said to have settled more than is stored of it."""
    under_claim = Counter(row.claim for row in run.rows.results)
    of_client: Counter[str] = Counter()
    for claim in run.rows.claims:
        of_client[claim.client] += under_claim[claim.claim]
        if claim.settled != under_claim[claim.claim]:
            yield f"claim {claim.claim} counts {claim.settled} results, {under_claim[claim.claim]} are stored"

    for member in run.rows.memberships:
        if member.settled > of_client[member.client]:
            yield f"{member.client} counts {member.settled} settled items, {of_client[member.client]} are stored"


def innocents_are_not_blamed(run: Run) -> Iterator[str]:
    """No fault is counted to a client for what others, nodes or the database did."""
    for member in run.rows.memberships:
        if member.client not in run.innocent:
            continue
        for name in ("given_back", "disconnects", "dead", "died", "bad_submits"):
            if count := getattr(member, name):
                yield f"{member.client} did nothing, and counts {name}: {count}"
        if member.health != "ok":
            yield f"{member.client} did nothing, and is {member.health}: {member.health_reason}"


def innocents_lose_nothing(run: Run) -> Iterator[str]:
    """No claim of such a client ends by what it would have to do itself."""
    for claim in run.rows.claims:
        if claim.client in run.innocent and claim.ended in ("cut_off", "dead", "released", "partial", "expired"):
            yield f"{claim.client} did nothing, and its claim {claim.claim} ended as {claim.ended}"


# The end


def all_is_drained(run: Run) -> Iterator[str]:
    """Every item that was acknowledged as added is settled, and nothing is left open."""
    missing = run.added - run.rows.keys
    if missing:
        yield f"{len(missing)} items that were acknowledged as added are not in the catalogue: {min(missing)}, …"

    unsettled = run.rows.items - {row.item for row in run.rows.results}
    places = dict(run.rows.open)
    for item in sorted(unsettled):
        yield f"item {item} is not settled; it is {places.get(item, 'nowhere')}"
    for bucket in run.rows.buckets:
        if bucket.state != "done":
            yield f"{bucket.bucket} is {bucket.state}, with {bucket.client or 'nobody'}"


RULES: tuple[Rule, ...] = (
    one_claim_one_session,
    claims_end_before_the_next,
    claim_numbers_grow,
    one_holder_at_a_time,
    stale_claims_do_nothing,
    acknowledged_is_stored,
    stored_once,
    nothing_from_nowhere,
    repeats_are_known,
    counted_once,
    innocents_are_not_blamed,
    innocents_lose_nothing,
    all_is_drained,
)
