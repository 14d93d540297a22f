"""The plugin contract and the built-in services, which come through the same door as anyone's."""

from coordinator.services.contract import Item, Plugin, Settled, Tables
from coordinator.services.discovery import load_plugins, tables_of
from coordinator.services.reader import Reader, Rows

__all__ = ["Item", "Plugin", "Reader", "Rows", "Settled", "Tables", "load_plugins", "tables_of"]
