"""Find plugins by the entry points of all installed distributions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable

from coordinator.errors import ConfigError
from coordinator.services.contract import GROUP, Plugin


def load_plugins() -> dict[str, type[Plugin]]:
    """Return all installed plugins by name.

    Raises:
        ConfigError: two plugins have the same name, or one cannot be loaded.
    """
    plugins: dict[str, type[Plugin]] = {}
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()
        except Exception as failure:
            raise ConfigError(f"The service plugin {point.value} cannot be loaded: {failure}") from failure
        if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
            raise ConfigError(f"The service plugin {point.value} does not derive from Plugin.")
        if plugins.setdefault(plugin.name, plugin) is not plugin:
            raise ConfigError(f"Two service plugins are named {plugin.name}.")

    return plugins


def tables_of(plugins: Mapping[str, type[Plugin]]) -> dict[str, Traversable]:
    """Return the folders of migrations of these plugins, by the name under which they are recorded."""
    return {plugin.tables.name: plugin.tables.folder for plugin in plugins.values() if plugin.tables is not None}
