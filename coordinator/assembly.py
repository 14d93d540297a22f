"""The one place where the parts of a node are joined."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import msgspec

from coordinator import __version__
from coordinator.config import Settings
from coordinator.flow.activity import ActivityLog
from coordinator.flow.asks import Asks
from coordinator.flow.bucket_builder import BucketBuilder
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.client_counters import ClientCounters
from coordinator.flow.commits import Commits
from coordinator.flow.core import Core, NodeState
from coordinator.flow.expiry import Expiry
from coordinator.flow.grant import Grant
from coordinator.flow.health_monitor import HealthMonitor
from coordinator.flow.intake import Intake
from coordinator.flow.item_operation import ItemOperation
from coordinator.flow.lease import Lease
from coordinator.flow.membership import Memberships
from coordinator.flow.operation import Operation
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.readiness import Readiness
from coordinator.flow.release import Releases
from coordinator.flow.service_life import ServiceLife
from coordinator.flow.session_registry import SessionRegistry
from coordinator.flow.signals import Signals
from coordinator.flow.undo import Undo
from coordinator.model import Boot
from coordinator.observe.database_rates import DatabaseRates
from coordinator.observe.events import Events
from coordinator.observe.metrics import Metrics
from coordinator.observe.node_load import LoadMeter
from coordinator.observe.recorder import Recorder
from coordinator.observe.tables import Tables
from coordinator.observe.topics import Topics
from coordinator.serve.admin_channel import AdminDependencies, admin_answers
from coordinator.serve.background_tasks import BackgroundTasks
from coordinator.serve.change_listener import ChangeListener
from coordinator.serve.channel import Edge
from coordinator.serve.client_channel import ClientDependencies
from coordinator.serve.feeds import Feeds
from coordinator.serve.http_pages import HttpPages
from coordinator.serve.limits import Addresses
from coordinator.serve.listener import Channels, Listener
from coordinator.serve.open_sessions import OpenSessions
from coordinator.serve.pages import Page, dashboard_pages
from coordinator.serve.stats_channel import StatsDependencies
from coordinator.services import Plugin
from coordinator.store.pool import Database
from coordinator.wire.client import Limits
from coordinator.wire.frames import ServerCard
from coordinator.wire.schema import asyncapi

Run = Callable[[], Awaitable[None]]
"""Works until cancelled."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a node that run, or that something outside of them asks for something."""

    core: Core
    background: BackgroundTasks
    activity_log: ActivityLog
    builder: BucketBuilder
    grant: Grant
    commits: Commits
    releases: Releases
    health_monitor: HealthMonitor
    lease: Lease
    expiry: Expiry
    item_operation: ItemOperation
    service_life: ServiceLife
    undo: Undo
    load_meter: LoadMeter
    recorder: Recorder
    feeds: Feeds
    sessions: OpenSessions
    listener: Listener
    change_listener: ChangeListener

    def runs(self) -> Iterator[tuple[str, Run]]:
        """What works as long as the node does, by name."""
        yield "grant", self.grant.run
        yield "commits", self.commits.run
        yield "signals", self.core.signals.run
        yield "lease", self.lease.run
        yield "expiry", self.expiry.run
        yield "releases", self.releases.run
        yield "services", self.service_life.run
        yield "undo", self.undo.run
        yield "activity", self.activity_log.run
        yield "load", self.load_meter.run
        yield "feeds", self.feeds.run
        yield "recorder", self.recorder.run
        yield "listener", self.listener.run


def make_core(
    settings: Settings, database: Database, boot: Boot, plugins: dict[str, type[Plugin]], events: Events
) -> Core:
    """Make the parts that have no steps of their own."""
    lost_track = asyncio.Event()
    return Core(
        settings=settings,
        boot=boot,
        state=NodeState(),
        database=database,
        catalogue=Catalogue(plugins),
        registry=SessionRegistry(),
        signals=Signals(database, boot, lost_track),
        counters=ClientCounters(),
        events=events,
        lost_track=lost_track,
    )


def assemble(core: Core) -> Parts:
    """Join the parts of one node; nothing runs yet."""
    background = BackgroundTasks(core.events)
    sessions = OpenSessions()

    # The steps of the work.
    activity_log = ActivityLog(core)
    plugin_runner = PluginRunner(core.database, activity_log)
    builder = BucketBuilder(core.database)
    grant = Grant(core, builder)
    commits = Commits(core)
    intake = Intake(core, commits, grant, plugin_runner)
    releases = Releases(core, grant)
    memberships = Memberships(core, grant, releases)
    health_monitor = HealthMonitor(core)
    load_meter = LoadMeter(sessions.client_count, core.counters.settled_items, grant.demand)
    lease = Lease(core, releases, load_meter)
    expiry = Expiry(core, grant, builder, releases, health_monitor, activity_log)
    readiness = Readiness(core)

    # Operation.
    operation = Operation(core, grant, releases, memberships)
    item_operation = ItemOperation(core, grant, builder, releases, plugin_runner)
    service_life = ServiceLife(core, grant, releases, plugin_runner)
    undo = Undo(core, releases, plugin_runner)

    # Statistics.
    rates = DatabaseRates(core.database, core.settings.node_name, core.counters.stored_submits)
    topics = Topics(core.database, core.catalogue, grant, core.boot, rates)
    tables = Tables(core.database, core.catalogue, topics)
    feeds = Feeds(topics.by_name, core.events)
    recorder = Recorder(core.database, core.counters, core.events, core.boot)
    metrics = Metrics(core, grant, load_meter, sessions.counts)

    # Sockets.
    edge = _edge(core, background)
    channels = Channels(
        client=ClientDependencies(grant, Asks(core, grant), intake, releases, memberships),
        stats=StatsDependencies(feeds, tables.page),
        admin=AdminDependencies(admin_answers(operation, item_operation, service_life, undo, edge, readiness)),
    )
    pages = {"/v1/asyncapi.json": Page("application/json", msgspec.json.encode(asyncapi())), **dashboard_pages()}
    listener = Listener(edge, channels, HttpPages(readiness, pages, metrics.page), sessions)
    change_listener = ChangeListener(core, grant, memberships, sessions, background)

    return Parts(
        core=core,
        background=background,
        activity_log=activity_log,
        builder=builder,
        grant=grant,
        commits=commits,
        releases=releases,
        health_monitor=health_monitor,
        lease=lease,
        expiry=expiry,
        item_operation=item_operation,
        service_life=service_life,
        undo=undo,
        load_meter=load_meter,
        recorder=recorder,
        feeds=feeds,
        sessions=sessions,
        listener=listener,
        change_listener=change_listener,
    )


def listen_to_signals(parts: Parts) -> None:
    """Let the parts hear what nodes tell each other."""
    signals = parts.core.signals
    signals.on("work", parts.grant.on_work)
    signals.on("lost", parts.releases.on_lost)
    signals.on("dead", parts.expiry.on_dead)
    parts.change_listener.listen()


def _edge(core: Core, background: BackgroundTasks) -> Edge:
    settings = core.settings
    limits = Limits(
        max_message_bytes=settings.max_message_bytes,
        max_buckets_per_ask=10,
        max_held_buckets=20,
        messages_per_minute=settings.messages_per_minute,
        registrations_per_minute=settings.registrations_per_minute,
        connections_per_address=settings.connections_per_address,
        max_sessions=settings.max_sessions,
        hello_timeout=settings.hello_timeout,
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
    )
    addresses = Addresses(settings.connections_per_address, settings.registrations_per_minute, settings.trusted_proxies)
    card = ServerCard(name="coordinator", version=__version__, node=settings.node_name)
    return Edge(core, background, addresses, limits, card)
