"""Fixtures that several tests of the client channel share."""

from __future__ import annotations

import pytest

from tests.harness import Admin, Message, Volunteer


@pytest.fixture
async def bucket(admin: Admin, volunteer: Volunteer) -> Message:
    """A bucket of four items that the volunteer holds."""
    await admin.add(4)
    return await volunteer.bucket()
