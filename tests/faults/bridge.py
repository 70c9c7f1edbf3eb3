"""A `bridge serve` that dies and comes back: one folder, one environment, one port, one process after the other."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tests.kafka.serving import Serving, begun


class Bridge:
    """The present process, if there is one.

    Attributes:
        deaths: how many processes were killed.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.deaths = 0
        self._folder = folder
        self._serving: Serving | None = None
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Bridge]:
        """One that is ready; whatever process there is at the end is killed."""
        bridge = cls(folder, environment)
        try:
            await bridge.start()
            yield bridge
        finally:
            await bridge.kill()

    @property
    def serving(self) -> Serving:
        """The running process."""
        assert self._serving is not None, "it was killed"
        return self._serving

    @property
    def port(self) -> int:
        """The public port, of all processes."""
        return int(self.environment["BRIDGE_PORT"])

    async def start(self, until: str = "/readyz", **variables: str) -> None:
        """Start the next process, with these settings from now on, and wait until the management port says 200 there."""
        self.environment = {**self.environment, **{f"BRIDGE_{name}": value for name, value in variables.items()}}
        self._serving = await self._stack.enter_async_context(begun(self._folder, self.environment))
        await self._serving.until_asked(until, 200)

    async def kill(self) -> None:
        """SIGKILL; what it printed is looked at."""
        self.deaths += self._serving is not None
        self._serving = None
        await self._stack.aclose()

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        exit_code = await self.serving.process.end(signal.SIGTERM)
        self._serving = None
        await self._stack.aclose()
        return exit_code
