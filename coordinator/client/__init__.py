"""The volunteers' side: a library, a daemon, and checkers.  It imports `wire` and nothing of the server."""

from coordinator.client.backoff import Backoff
from coordinator.client.bucket_stream import BucketStream
from coordinator.client.checkers import Checker, CheckFailed, UpstreamLimited, UpstreamOut
from coordinator.client.held_bucket import HeldBucket
from coordinator.client.identity import ClientIdentity, load_identity
from coordinator.client.library import Client
from coordinator.client.session import SessionEnded

__all__ = [
    "Backoff",
    "BucketStream",
    "CheckFailed",
    "Checker",
    "Client",
    "ClientIdentity",
    "HeldBucket",
    "SessionEnded",
    "UpstreamLimited",
    "UpstreamOut",
    "load_identity",
]
