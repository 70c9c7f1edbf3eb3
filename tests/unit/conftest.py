"""Fixtures of the units."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.port import Port, opened


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    """A public port."""
    async with opened() as port:
        yield port
