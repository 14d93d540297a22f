"""Find plugins by the entry points of all installed distributions."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable

from coordinator.errors import ConfigError
from coordinator.services.contract import GROUP, Plugin


def load_plugins() -> dict[str, type[Plugin]]:
    """Return all installed plugins by name.

    Raises:
        ConfigError: two plugins have the same name, or one cannot be loaded.
    """
    plugins: dict[str, type[Plugin]] = {}
    for _, plugin in _loaded(plugins):
        if isinstance(plugin, ConfigError):
            raise plugin
    return plugins


def look_again() -> tuple[dict[str, type[Plugin]], dict[str, str]]:
    """Return all plugins that are installed by now, and, by the name of its entry point, why one cannot be used.

    It imports modules, which takes what time they take.
    """
    importlib.invalidate_caches()
    plugins: dict[str, type[Plugin]] = {}
    faults = {point.name: str(plugin) for point, plugin in _loaded(plugins) if isinstance(plugin, ConfigError)}
    return plugins, faults


def _loaded(plugins: dict[str, type[Plugin]]) -> Iterator[tuple[EntryPoint, type[Plugin] | ConfigError]]:
    """Load each entry point into `plugins`, and yield it with its plugin, or with why it is none."""
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()
        except Exception as failure:
            error = ConfigError(f"The service plugin {point.value} cannot be loaded: {failure}")
            error.__cause__ = failure
            yield point, error
            continue

        if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
            yield point, ConfigError(f"The service plugin {point.value} does not derive from Plugin.")
        elif plugins.setdefault(plugin.name, plugin) is not plugin:
            yield point, ConfigError(f"Two service plugins are named {plugin.name}.")
        else:
            yield point, plugin


def tables_of(plugins: Mapping[str, type[Plugin]]) -> dict[str, Traversable]:
    """Return the folders of migrations of these plugins, by the name under which they are recorded."""
    return {plugin.tables.name: plugin.tables.folder for plugin in plugins.values() if plugin.tables is not None}
