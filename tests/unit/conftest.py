"""Fixtures of the units."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.unit.port import Port, opened


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of `bridge serve`."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    """A public port."""
    async with opened() as port:
        yield port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the spool is; made by it."""
    return tmp_path / "spool"
