"""The plugin contract, and the built-in services, which are found and loaded as any other plugin."""

from coordinator.services.contract import Item, Plugin, Settled, Tables
from coordinator.services.discovery import load_plugins, look_again, tables_of
from coordinator.services.reader import DecodedResults, Reader

__all__ = ["DecodedResults", "Item", "Plugin", "Reader", "Settled", "Tables", "load_plugins", "look_again", "tables_of"]
