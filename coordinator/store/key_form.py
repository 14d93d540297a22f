"""How the keys of a database are compared: chosen when it is made, and never changed."""

from __future__ import annotations

from typing import cast

from coordinator.keys import KeyForm
from coordinator.store.pool import Connection

_CHOOSE = "UPDATE key_form SET form = $1"

_READ = "SELECT form FROM key_form"


async def choose(db: Connection, form: KeyForm) -> None:
    """Choose the form, in the transaction that makes the database."""
    await db.execute(_CHOOSE, form)


async def read(db: Connection) -> KeyForm:
    """Return the form."""
    return cast("KeyForm", await db.fetchval(_READ))
