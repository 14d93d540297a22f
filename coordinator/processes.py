"""`coordinator serve` as one process with a node, or as a supervisor of several processes on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import structlog
import uvloop

from coordinator import service_manager
from coordinator.address_file import address_file
from coordinator.app import Node
from coordinator.config import Settings
from coordinator.errors import ConfigError
from coordinator.first_process import is_first_process, run_as_child
from coordinator.observe import logs
from coordinator.prepare import prepared_database

log = structlog.get_logger()


GC_THRESHOLD = 50_000
"""New objects after which the collector looks for reference cycles: those of some hundred submits.

Python's default of 700 is reached several times in each submit, and messages contain hardly any cycles.
"""


def collect_seldom() -> None:
    """Make the collection of reference cycles rare, and exclude all objects that exist already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def note_reloads() -> list[int]:
    """Note each SIGHUP from now on, until a node is there that reloads its settings; returns the notes."""
    noted: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: noted.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    return noted


async def serve_until_signal(node: Node, noted: list[int]) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    SIGHUP reloads the settings; so do those that were noted while the node started.
    Returns True after such an end; False if a part of the node failed, or its lease was lost.
    """
    loop = asyncio.get_running_loop()
    drains: list[asyncio.Task[None]] = []
    begun = 0.0

    def on_signal() -> None:
        nonlocal begun
        if drains:
            # A terminal and a parent process may both pass on the same signal.
            if loop.time() > begun + 1.0:
                node.stop()
        else:
            begun = loop.time()
            drains.append(loop.create_task(node.drain("the node stops")))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, node.reload)
    if noted:
        node.reload()
    await node.wait_until_stopped()

    for drain in drains:
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain
    return not node.failed


Opened = Callable[[Settings, int], None]
"""Told once, with the port, when peers can connect."""


def run(settings: Settings, opened: Opened) -> int:
    """Serve until a signal; returns the exit code: 0 after a drain, 1 after a failure."""
    logs.configure(settings.log_format, settings.log_level)

    def serve() -> int:
        noted = note_reloads()
        many = settings.processes > 1
        return uvloop.run(_run_many(settings, opened) if many else _run_one(settings, noted, opened))

    return run_as_child(serve) if is_first_process() else serve()


async def _run_one(settings: Settings, noted: list[int], opened: Opened) -> int:
    async with Node(settings) as node:
        collect_seldom()
        opened(settings, node.port)
        async with service_manager.ready():
            return 0 if await serve_until_signal(node, noted) else 1


# Several processes on one port: the first one owns the database and supervises the others.


async def _run_many(settings: Settings, opened: Opened) -> int:
    async with prepared_database(settings) as prepared:
        with _reserved_port(settings) as port, address_file(settings, port):
            opened(settings, port)
            async with service_manager.ready():
                return await _supervise(settings, prepared.dsn, port)


@contextlib.contextmanager
def _reserved_port(settings: Settings) -> Iterator[int]:
    """Reserve the port that the processes share, without listening on it, so that a free port is the same for all."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((settings.host, settings.port))
        except OSError as failure:
            where = f"{settings.host}:{settings.port}"
            raise ConfigError(f"port: cannot listen on {where}: {failure.strerror}") from failure
        yield int(held.getsockname()[1])


async def _supervise(settings: Settings, dsn: str, port: int) -> int:
    """Run the processes, restart those that end, and pass on signals; returns the exit code."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    context = multiprocessing.get_context("spawn")
    children: dict[int, multiprocessing.process.BaseProcess] = {}

    def start(index: int) -> None:
        # A copy keeps which settings were given, and which are defaults.
        own = settings.model_copy(
            update={
                "port": port,
                "ops_port": settings.ops_port + index if settings.ops_port else 0,
                "node_name": f"{settings.node_name[:60]}-{index}",
                "processes": 1,
            }
        )
        children[index] = context.Process(target=_child, args=(own, dsn), name=f"coordinator-{index}")
        # A child that does not run yet would end by a SIGHUP: it takes it in once it can note it.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        children[index].start()
        signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def pass_on(number: int) -> None:
        for child in children.values():
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, number)

    def stop(number: int) -> None:
        stopping.set()
        pass_on(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, pass_on, signal.SIGHUP)
    for index in range(settings.processes):
        start(index)

    while any(child.is_alive() for child in children.values()) or not stopping.is_set():
        for index, child in list(children.items()):
            if not child.is_alive() and not stopping.is_set():
                log.error("a process ended, starting it again", node=index, code=child.exitcode)
                start(index)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2 if stopping.is_set() else 1.0):
                await (asyncio.sleep(1) if stopping.is_set() else stopping.wait())

    return 0 if all(child.exitcode == 0 for child in children.values()) else 1


def _child(settings: Settings, dsn: str) -> None:
    noted = note_reloads()
    logs.configure(settings.log_format, settings.log_level)
    with contextlib.suppress(ConfigError):  # one that is started again must not fall behind the others
        settings, _ = settings.reread()

    async def serve() -> int:
        async with Node(settings, dsn=dsn, shared_port=True) as node:
            collect_seldom()
            return 0 if await serve_until_signal(node, noted) else 1

    sys.exit(uvloop.run(serve()))
