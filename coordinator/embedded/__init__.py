"""The Postgres that the program owns, in a folder of its own.

A folder ("root" below) holds

    data/            the cluster; made as data.new and renamed when whole
    sock/            mode 0700, the socket: only its account can enter and connect (in /tmp for long paths)
    postgres.log     the log of Postgres; bounded, its end before that is in postgres.log.1
    binaries/        a copy of the wheel's, only if Postgres may not read those installed
    *.lock           owner: the one `serve`; users: all that have started the server and not stopped it;
                     start: one start or stop at a time; alive: held by Postgres itself, every process of it

Nothing here trusts a pid. `alive` is a file descriptor that the postmaster inherits and passes on to its
children, so that the lock is free when the last of them has ended, in whatever way. A
program killed with -9 leaves a postmaster behind; the next start uses that one, or waits for its end and
lets a new one recover. Nothing acknowledged is lost by it, since fsync stays on and answers wait for the disk.

Linux and macOS. All calls block: an event loop calls them by asyncio.to_thread.
"""

from coordinator.embedded.account import close_to_others
from coordinator.embedded.folder import FolderLock, own_folder
from coordinator.embedded.server import TUNED, EmbeddedPostgres, running_dsn

__all__ = ["TUNED", "EmbeddedPostgres", "FolderLock", "close_to_others", "own_folder", "running_dsn"]
