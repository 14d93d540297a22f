"""The protocol as types and rules: no sockets, no database, no clock.  protocol.md is its text."""
