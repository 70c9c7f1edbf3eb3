"""`bridge` and other programs as real processes: what they print is kept, and none of them outlives the test."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bridge.local.jvm import TETHER

START_DEADLINE_S = 60  # a start takes seconds; a busy CI machine takes ten times as long
EXIT_DEADLINE_S = 60
POLL_INTERVAL_S = 0.02
NOT_INHERITED = (
    "BRIDGE_",
    "PYTHONDONTWRITEBYTECODE",  # some hundred processes would each compile all of our code again
)


async def until(condition: Callable[[], bool], what: str, deadline_s: float = START_DEADLINE_S) -> None:
    """Waits until ``condition`` holds; fails with ``what`` was waited for when it never does."""
    try:
        async with asyncio.timeout(deadline_s):
            while not condition():  # noqa: ASYNC110 - what other processes do sets no event of ours
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError:
        raise AssertionError(f"waited {deadline_s:g} s in vain: {what}") from None


class Process:
    """A Python program that a test started."""

    def __init__(self, process: asyncio.subprocess.Process, stdout: Path, stderr: Path) -> None:
        self._process = process
        self._stdout = stdout
        self._stderr = stderr

    @classmethod
    async def begin(
        cls,
        *arguments: str | Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> Process:
        """Starts ``python ARGUMENT…`` in ``folder``, without any BRIDGE_ variable but those of ``environment``."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        output = folder / f"process-{secrets.token_hex(4)}"
        stdout, stderr = output.with_suffix(".stdout"), output.with_suffix(".stderr")
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), sys.executable),
                *map(str, arguments),
                stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**inherited, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            await process.stdin.drain()
            process.stdin.close()
        return cls(process, stdout, stderr)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self._stdout.read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What it complained of so far."""
        return self._stderr.read_text("utf-8", "replace")

    async def until_printed(self, text: str, deadline_s: float = START_DEADLINE_S) -> str:
        """Waits until ``text`` stands in either output and returns both; fails when the process ends without it."""

        def printed() -> bool:
            ended = self.exit_code is not None  # asked before reading: what it printed last must still count
            output = self.stdout + self.stderr
            assert text in output or not ended, f"ended with {self.exit_code} without {text!r}:\n{output}"
            return text in output

        await until(printed, f"{text!r} in what the process prints", deadline_s)
        return self.stdout + self.stderr

    def send(self, number: signal.Signals) -> None:
        """Sends a signal and waits for nothing."""
        self._process.send_signal(number)

    async def end(self, number: signal.Signals | None = None, deadline_s: float = EXIT_DEADLINE_S) -> int:
        """Sends the signal when one is given, waits for the end and returns the exit code."""
        if number is not None and self.exit_code is None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), deadline_s)
