"""The volunteers' side: a library, a daemon, and checkers.  It knows the wire and nothing of the server."""

from coordinator.client.backoff import Backoff
from coordinator.client.bucket import Bucket
from coordinator.client.checkers import Checker, CheckFailed, UpstreamLimited
from coordinator.client.identity import Identity, load_identity
from coordinator.client.intake import Intake
from coordinator.client.library import Client
from coordinator.client.session import SessionEnded

__all__ = [
    "Backoff",
    "Bucket",
    "CheckFailed",
    "Checker",
    "Client",
    "Identity",
    "Intake",
    "SessionEnded",
    "UpstreamLimited",
    "load_identity",
]
