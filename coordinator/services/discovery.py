"""The door through which plugins come: the entry points of all installed distributions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable

from coordinator.errors import ConfigError
from coordinator.services.contract import GROUP, Plugin


def load_plugins() -> dict[str, type[Plugin]]:
    """All installed plugins by name.

    Raises:
        ConfigError: two have the same name, or one cannot be loaded.
    """
    found: dict[str, type[Plugin]] = {}
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()
        except Exception as failure:
            raise ConfigError(f"The service plugin {point.value} cannot be loaded: {failure}") from failure
        if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
            raise ConfigError(f"The service plugin {point.value} does not derive from Plugin.")
        if found.setdefault(plugin.name, plugin) is not plugin:
            raise ConfigError(f"Two service plugins are named {plugin.name}.")
    return found


def tables_of(plugins: Mapping[str, type[Plugin]]) -> dict[str, Traversable]:
    """The folders of migrations that these plugins bring, by the name that they are noted under."""
    return {one.tables.name: one.tables.folder for one in plugins.values() if one.tables is not None}
