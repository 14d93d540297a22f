"""The one place where the parts of a node are joined."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from coordinator import __version__
from coordinator.admin import Steps, join_steps
from coordinator.admin.activity import ActivityRequests
from coordinator.admin.buckets import BucketRequests
from coordinator.admin.clients import ClientRequests
from coordinator.admin.item_adder import ItemAdder
from coordinator.admin.items import ItemRequests
from coordinator.admin.nodes import NodeRequests
from coordinator.admin.notices import NoticeRequests
from coordinator.admin.results import ResultRequests
from coordinator.admin.services import ServiceRequests
from coordinator.admin.system import SystemRequests
from coordinator.admin.tokens import TokenRequests
from coordinator.config import Settings
from coordinator.flow.activity import ActivityLog
from coordinator.flow.arrivals import Arrivals
from coordinator.flow.asks import Asks
from coordinator.flow.bucket_builder import BucketBuilder
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.catalogue_fill import CatalogueFill
from coordinator.flow.client_counters import ClientCounters
from coordinator.flow.commits import Commits
from coordinator.flow.core import Core, NodeState
from coordinator.flow.database_watch import DatabaseWatch
from coordinator.flow.discoveries import Discoveries
from coordinator.flow.expiry import Expiry
from coordinator.flow.grant import Grant
from coordinator.flow.health_monitor import HealthMonitor
from coordinator.flow.intake import Intake
from coordinator.flow.lease import Lease
from coordinator.flow.longest_waits import LongestWaits
from coordinator.flow.membership import Memberships
from coordinator.flow.notices import Notices
from coordinator.flow.personal_data import PersonalData
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.plugin_search import PluginSearch
from coordinator.flow.pool_fronts import PoolFronts
from coordinator.flow.pruner import Pruner
from coordinator.flow.readiness import Readiness
from coordinator.flow.release import Releases
from coordinator.flow.requeue import Requeue
from coordinator.flow.session_registry import SessionRegistry
from coordinator.flow.signal_types import ClaimsDied, ClaimsLost, LongWaits, WorkCame
from coordinator.flow.signals import Signals
from coordinator.flow.supervisor import Run, Supervisor
from coordinator.flow.wait_view import WaitView
from coordinator.keys import KeyForm
from coordinator.model import Boot
from coordinator.observe.cost_counts import CostCounts
from coordinator.observe.events import Events
from coordinator.observe.node_load import NodeLoadMeter
from coordinator.serve.admin_channel import AdminDependencies
from coordinator.serve.background_tasks import BackgroundTasks
from coordinator.serve.certificate import Certificate, certificate_of
from coordinator.serve.change_listener import ChangeListener
from coordinator.serve.channel import Edge
from coordinator.serve.client_channel import ClientDependencies
from coordinator.serve.costs import Costs
from coordinator.serve.feeds import Feeds
from coordinator.serve.http_pages import HttpPages
from coordinator.serve.limits import Addresses
from coordinator.serve.listener import Channels, Listener
from coordinator.serve.open_sessions import OpenSessions
from coordinator.serve.pages import StaticPage, dashboard_pages
from coordinator.serve.progress_pages import ProgressPages
from coordinator.serve.stats_channel import StatsDependencies
from coordinator.services import Plugin
from coordinator.stats.boards import Boards
from coordinator.stats.database_rates import DatabaseRates
from coordinator.stats.metrics import Metrics
from coordinator.stats.progress import ProgressReport
from coordinator.stats.recorder import Recorder
from coordinator.stats.tables import TablePages
from coordinator.stats.topics import Topics
from coordinator.store.pool import Database
from coordinator.wire.frames import Limits, ServerCard
from coordinator.wire.schema import asyncapi


@dataclass(frozen=True, slots=True)
class Work:
    """The parts that share out the work."""

    activity_log: ActivityLog
    plugin_runner: PluginRunner
    builder: BucketBuilder
    grant: Grant
    asks: Asks
    arrivals: Arrivals
    commits: Commits
    intake: Intake
    releases: Releases
    memberships: Memberships
    wait_view: WaitView
    notices: Notices
    personal_data: PersonalData
    health_monitor: HealthMonitor
    load_meter: NodeLoadMeter
    lease: Lease
    expiry: Expiry
    pruner: Pruner
    database_watch: DatabaseWatch
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Administration:
    """The requests of admins, and the parts that go on behind them."""

    steps: Steps
    catalogue_fill: CatalogueFill
    requeue: Requeue


@dataclass(frozen=True, slots=True)
class Statistics:
    """The parts that show and record the work."""

    table_pages: TablePages
    progress: ProgressReport
    feeds: Feeds
    recorder: Recorder
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Sockets:
    """The parts that connect peers."""

    listener: Listener
    change_listener: ChangeListener
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts of a node."""

    core: Core
    supervisor: Supervisor
    background: BackgroundTasks
    sessions: OpenSessions
    work: Work
    administration: Administration
    statistics: Statistics
    sockets: Sockets

    def runs(self) -> Iterator[tuple[str, Run]]:
        """Name what works as long as the node does, and is started again if it fails."""
        yield "grant", self.work.grant.run
        yield "arrivals", self.work.arrivals.run
        yield "commits", self.work.commits.run
        yield "signals", self.core.signals.run
        yield "expiry", self.work.expiry.run
        yield "releases", self.work.releases.run
        yield "catalogue fill", self.administration.catalogue_fill.run
        yield "requeue", self.administration.requeue.run
        yield "activity", self.work.activity_log.run
        yield "pruner", self.work.pruner.run
        yield "database watch", self.work.database_watch.run
        yield "wait view", self.work.wait_view.run
        yield "load", self.work.load_meter.run
        yield "feeds", self.statistics.feeds.run
        yield "recorder", self.statistics.recorder.run
        yield "change listener", self.sockets.change_listener.run

        if self.sockets.certificate is not None:
            yield "certificate", self.sockets.certificate.run

    def vital_runs(self) -> Iterator[tuple[str, Run]]:
        """Name what works as long as the node does, and ends it by failing."""
        yield "lease", self.work.lease.run
        yield "listener", self.sockets.listener.run


def make_core(
    settings: Settings,
    database: Database,
    boot: Boot,
    key_form: KeyForm,
    plugins: dict[str, type[Plugin]],
    events: Events,
) -> Core:
    """Make the core: the parts that depend on no others."""
    lost_track = asyncio.Event()
    signals = Signals(database, boot, lost_track)

    return Core(
        settings=settings,
        key_form=key_form,
        boot=boot,
        state=NodeState(settings),
        database=database,
        catalogue=Catalogue(plugins, signals, key_form, trusts_newcomers=settings.only_from_here),
        registry=SessionRegistry(),
        signals=signals,
        counters=ClientCounters(),
        events=events,
        fronts=PoolFronts(),
        longest_waits=LongestWaits(boot, signals),
        lost_track=lost_track,
    )


def assemble(core: Core) -> Parts:
    """Join the parts of one node; nothing runs yet.

    Raises:
        ConfigError: the certificate or its key cannot be used.
    """
    supervisor = Supervisor(core)
    background = BackgroundTasks(core.events)
    sessions = OpenSessions()

    edge = _edge(core, background)

    work = _join_work(core, sessions, supervisor)
    administration = _join_administration(core, work, edge.limits)
    statistics = _join_statistics(core, work, sessions, edge.costs.counts)
    sockets = _join_sockets(edge, sessions, work, administration, statistics)
    return Parts(core, supervisor, background, sessions, work, administration, statistics, sockets)


def listen_to_signals(parts: Parts) -> None:
    """Subscribe the parts to the signals between nodes."""
    signals = parts.core.signals
    signals.on(WorkCame, parts.work.grant.on_work)
    signals.on(LongWaits, parts.work.grant.on_long_waits)
    signals.on(ClaimsLost, parts.work.releases.on_lost)
    signals.on(ClaimsDied, parts.work.expiry.on_dead)
    parts.sockets.change_listener.listen()


def _join_work(core: Core, sessions: OpenSessions, supervisor: Supervisor) -> Work:
    activity_log = ActivityLog(core)
    plugin_runner = PluginRunner(core.database, activity_log)
    builder = BucketBuilder(core.database)
    grant = Grant(core, builder)
    asks = Asks(core, grant)
    commits = Commits(core)
    intake = Intake(core, commits, grant, plugin_runner, Discoveries(core, plugin_runner))
    releases = Releases(core, grant)
    arrivals = Arrivals(core)
    memberships = Memberships(core, arrivals, grant, releases, plugin_runner)

    health_monitor = HealthMonitor(core)
    load_meter = NodeLoadMeter(sessions.client_count, core.counters.settled_items, grant.demand)
    lease = Lease(core, releases, load_meter)
    expiry = Expiry(core, grant, builder, releases, health_monitor, activity_log)
    readiness = Readiness(core, supervisor)

    return Work(
        activity_log=activity_log,
        plugin_runner=plugin_runner,
        builder=builder,
        grant=grant,
        asks=asks,
        arrivals=arrivals,
        commits=commits,
        intake=intake,
        releases=releases,
        memberships=memberships,
        wait_view=WaitView(core, grant),
        notices=Notices(core),
        personal_data=PersonalData(core, grant, releases),
        health_monitor=health_monitor,
        load_meter=load_meter,
        lease=lease,
        expiry=expiry,
        pruner=Pruner(core),
        database_watch=DatabaseWatch(core),
        readiness=readiness,
    )


def _join_administration(core: Core, work: Work, limits: Limits) -> Administration:
    grant, builder, releases, plugin_runner = work.grant, work.builder, work.releases, work.plugin_runner
    plugin_search = PluginSearch(core)
    catalogue_fill = CatalogueFill(core, releases, plugin_runner, plugin_search)
    requeue = Requeue(core, releases)

    steps = join_steps(
        ServiceRequests(core, grant, releases, catalogue_fill, plugin_search),
        ItemRequests(core, grant, ItemAdder(core, grant, builder, plugin_runner), releases, plugin_runner),
        BucketRequests(core, releases),
        ResultRequests(core, releases, plugin_runner, requeue),
        ClientRequests(core, grant, releases, work.memberships, work.personal_data, work.wait_view),
        NoticeRequests(core),
        TokenRequests(core),
        ActivityRequests(core),
        NodeRequests(core),
        SystemRequests(core, work.readiness, limits),
    )
    return Administration(steps, catalogue_fill, requeue)


def _join_statistics(core: Core, work: Work, sessions: OpenSessions, cost_counts: CostCounts) -> Statistics:
    topics = Topics(core, work.grant, DatabaseRates(core), work.wait_view)
    boards = Boards(core)
    progress = ProgressReport(core, topics, boards)
    return Statistics(
        table_pages=TablePages(core, topics, boards, progress, work.wait_view),
        progress=progress,
        feeds=Feeds(topics.by_name, core.events),
        recorder=Recorder(core),
        metrics=Metrics(core, work.grant, work.load_meter, sessions.counts, cost_counts),
    )


def _join_sockets(
    edge: Edge, sessions: OpenSessions, work: Work, administration: Administration, statistics: Statistics
) -> Sockets:
    channels = Channels(
        client=ClientDependencies(
            work.grant, work.asks, work.intake, work.releases, work.memberships, work.notices, work.personal_data
        ),
        stats=StatsDependencies(statistics.feeds, statistics.table_pages.page),
        admin=AdminDependencies(administration.steps),
    )

    document = StaticPage("application/json", msgspec.json.encode(asyncapi()))
    static_pages = {"/v1/asyncapi.json": document, **dashboard_pages()}
    pages = HttpPages(work.readiness, static_pages, ProgressPages(statistics.progress.get), statistics.metrics.page)
    listener = Listener(edge, channels, pages, sessions)
    change_listener = ChangeListener(edge.core, work.grant, work.memberships, work.notices, sessions, edge.background)
    certificate = certificate_of(edge.core.settings)
    return Sockets(listener, change_listener, certificate)


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
    addresses = Addresses(settings.connections_per_address, settings.registrations_per_minute)
    card = ServerCard(name="coordinator", version=__version__, node=settings.node_name)
    return Edge(core, background, addresses, Costs(), limits, card)
