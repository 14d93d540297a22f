"""The sockets: channels, plain HTTP, limits, drain."""
