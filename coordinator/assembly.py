"""The one place where the parts of a node are joined."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import msgspec

from coordinator import __version__
from coordinator.config import Settings
from coordinator.flow.activity import ActivityLog
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
from coordinator.serve.pages import StaticPage, dashboard_pages
from coordinator.serve.stats_channel import StatsDependencies
from coordinator.services import Plugin
from coordinator.store.pool import Database
from coordinator.wire.client import Limits
from coordinator.wire.frames import ServerCard
from coordinator.wire.schema import asyncapi

Run = Callable[[], Awaitable[None]]
"""Runs a part until cancelled."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a node that run, or that are used from outside of them."""

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
        """Return the parts that run as long as the node does, by name."""
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
    """Make the core: the parts that depend on no others."""
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


@dataclass(frozen=True, slots=True)
class Work:
    """The parts that share out the work."""

    activity_log: ActivityLog
    plugin_runner: PluginRunner
    builder: BucketBuilder
    grant: Grant
    commits: Commits
    intake: Intake
    releases: Releases
    memberships: Memberships
    health_monitor: HealthMonitor
    load_meter: LoadMeter
    lease: Lease
    expiry: Expiry
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Administration:
    """The parts that carry out the requests of admins."""

    operation: Operation
    item_operation: ItemOperation
    service_life: ServiceLife
    undo: Undo


@dataclass(frozen=True, slots=True)
class Statistics:
    """The parts that show and record the work."""

    tables: Tables
    feeds: Feeds
    recorder: Recorder
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Sockets:
    """The parts that connect peers."""

    listener: Listener
    change_listener: ChangeListener


def assemble(core: Core) -> Parts:
    """Join the parts of one node; nothing runs yet."""
    background = BackgroundTasks(core.events)
    sessions = OpenSessions()
    work = _join_work(core, sessions)
    administration = _join_administration(core, work)
    statistics = _join_statistics(core, work, sessions)
    sockets = _join_sockets(core, background, sessions, work, administration, statistics)

    return Parts(
        core=core,
        background=background,
        activity_log=work.activity_log,
        builder=work.builder,
        grant=work.grant,
        commits=work.commits,
        releases=work.releases,
        health_monitor=work.health_monitor,
        lease=work.lease,
        expiry=work.expiry,
        item_operation=administration.item_operation,
        service_life=administration.service_life,
        undo=administration.undo,
        load_meter=work.load_meter,
        recorder=statistics.recorder,
        feeds=statistics.feeds,
        sessions=sessions,
        listener=sockets.listener,
        change_listener=sockets.change_listener,
    )


def _join_work(core: Core, sessions: OpenSessions) -> Work:
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

    return Work(
        activity_log=activity_log,
        plugin_runner=plugin_runner,
        builder=builder,
        grant=grant,
        commits=commits,
        intake=intake,
        releases=releases,
        memberships=memberships,
        health_monitor=health_monitor,
        load_meter=load_meter,
        lease=lease,
        expiry=expiry,
        readiness=readiness,
    )


def _join_administration(core: Core, work: Work) -> Administration:
    grant, builder, releases, plugin_runner = work.grant, work.builder, work.releases, work.plugin_runner

    # Operation.
    operation = Operation(core, grant, releases, work.memberships)
    item_operation = ItemOperation(core, grant, builder, releases, plugin_runner)
    service_life = ServiceLife(core, grant, releases, plugin_runner)
    undo = Undo(core, releases, plugin_runner)

    return Administration(operation, item_operation, service_life, undo)


def _join_statistics(core: Core, work: Work, sessions: OpenSessions) -> Statistics:
    grant, load_meter = work.grant, work.load_meter

    # Statistics.
    rates = DatabaseRates(core.database, core.settings.node_name, core.counters.stored_submits)
    topics = Topics(core.database, core.catalogue, grant, core.boot, rates)
    tables = Tables(core.database, core.catalogue, topics)
    feeds = Feeds(topics.by_name, core.events)
    recorder = Recorder(core.database, core.counters, core.events, core.boot)
    metrics = Metrics(core, grant, load_meter, sessions.counts)

    return Statistics(tables, feeds, recorder, metrics)


def _join_sockets(
    core: Core,
    background: BackgroundTasks,
    sessions: OpenSessions,
    work: Work,
    administration: Administration,
    statistics: Statistics,
) -> Sockets:
    edge = _edge(core, background)
    answers = admin_answers(
        administration.operation,
        administration.item_operation,
        administration.service_life,
        administration.undo,
        edge,
        work.readiness,
    )
    channels = Channels(
        client=ClientDependencies(work.grant, work.intake, work.releases, work.memberships),
        stats=StatsDependencies(statistics.feeds, statistics.tables.page),
        admin=AdminDependencies(answers),
    )

    document = StaticPage("application/json", msgspec.json.encode(asyncapi()))
    pages = HttpPages(work.readiness, {"/v1/asyncapi.json": document, **dashboard_pages()}, statistics.metrics.page)
    listener = Listener(edge, channels, pages, sessions)
    change_listener = ChangeListener(core, work.grant, work.memberships, sessions, background)
    return Sockets(listener, change_listener)


def listen_to_signals(parts: Parts) -> None:
    """Subscribe the parts to the signals between nodes."""
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
