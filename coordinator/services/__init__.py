"""The plugin contract and the built-in services, which come through the same door as anyone's."""

from coordinator.services.contract import Item, Plugin, Reader, Rows, load_plugins

__all__ = ["Item", "Plugin", "Reader", "Rows", "load_plugins"]
