"""The protocol without a socket."""
