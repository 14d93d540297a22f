"""Shares out checks among volunteers over WebSocket; Postgres keeps every result, once."""

__version__ = "0.1.0"
