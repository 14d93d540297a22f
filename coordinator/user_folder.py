"""The folder of this account for the program's files, looked for when it is needed and not before."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from coordinator.errors import NoHomeFolder


def user_folder(instead: str) -> Path:
    """Return the per-user folder; `instead` says what else can be given.

    Raises:
        NoHomeFolder: the account has no home folder.
    """
    try:
        folder = platformdirs.user_data_path("coordinator")
    except (RuntimeError, KeyError):
        folder = Path()
    if not folder.is_absolute():
        raise NoHomeFolder(f"This account has no home folder to keep files in: give {instead}, or set HOME.")
    return folder
