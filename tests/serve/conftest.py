"""What several tests of the client channel begin with."""

from __future__ import annotations

import pytest

from tests.harness import Admin, Message, Volunteer


@pytest.fixture
async def bucket(admin: Admin, volunteer: Volunteer) -> Message:
    """Four items in the hands of the volunteer."""
    await admin.add(4)
    return await volunteer.bucket()
