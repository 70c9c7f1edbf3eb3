"""The spool's disk is full, fails, or holds rubbish, while Kafka is away: a clear 503, no crash, no lie, and it heals."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.bridge import Bridge
from tests.faults.broker import ProxiedKafka
from tests.faults.disk import MAY_MOUNT, MIB, filled, no_file_may_grow, small_disk
from tests.faults.load import Load
from tests.faults.test_crash import LONG, prepared, settled
from tests.http.wire import Answer
from tests.kafka.serving import message, notification


@contextlib.asynccontextmanager
async def cut_off(
    broken: ProxiedKafka, prefix: str, folder: Path, **variables: str
) -> AsyncIterator[tuple[Bridge, Load]]:
    """A bridge whose Kafka is away, with something in its spool; nothing that was answered 200 is missing when it is back."""
    async with prepared(broken, prefix, folder, **variables) as bridge:
        broken.network.cut()
        load = Load(bridge.port, senders=8, rate=None, text=LONG)
        async with load.running():
            await load.until_more(50, "spool")
        yield bridge, load

        async with Load(bridge.port, ledger=load.ledger).running() as after:
            broken.network.heal()
            await after.until_more(50, "kafka")
        await bridge.serving.until_asked("/readyz", 200)
        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered) == (0, 0)


async def refused(bridge: Bridge, reason: str) -> Answer:
    """A delivery is refused for this reason, and readiness says so."""
    answer = await bridge.serving.deliver(notification(message("refused")))
    assert (answer.status, answer.body.decode()) == (503, reason)
    assert int(answer.headers["retry-after"]) > 0
    assert (await bridge.serving.ask("/readyz"))[0] == 503
    assert (await bridge.serving.ask("/livez"))[0] == 200
    return answer


async def test_spool_filled_to_its_bound_refuses_and_is_drained(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """BRIDGE_SPOOL_BYTES_MAX holds to the byte; beyond it 503 and not ready."""
    async with cut_off(broken, topic_prefix, tmp_path, SPOOL_BYTES_MAX=f"{MIB}") as (bridge, load):
        for text in (LONG, "s"):
            async with Load(bridge.port, rate=None, text=text, ledger=load.ledger).running() as more:
                await more.until_more(20, "503")
        await refused(bridge, "spool full")
        status = await bridge.serving.status()
        assert 0.99 * MIB < status["spool"]["bytes"] <= MIB == status["spool"]["bytes_max"]
        assert await bridge.serving.counted('instagram_bridge_deliveries_total{outcome="spool_full"}') >= 40


@pytest.mark.parametrize("logs", ["elsewhere", "there too"])
async def test_disk_that_is_full_refuses_and_heals(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path, logs: str
) -> None:
    """When others fill the disk 503 comes before the disk is full; even where the log has no place any more."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk", 8 * MIB)) if MAY_MOUNT else tmp_path
        folder = disk if logs == "there too" else tmp_path
        async with cut_off(broken, topic_prefix, folder, SPOOL_DIR=str(disk / "spool")) as (bridge, load):
            with filled(disk) if MAY_MOUNT else no_file_may_grow(bridge.serving.process.pid):
                await refused(bridge, "spool full" if MAY_MOUNT else "spool failed")
                async with Load(bridge.port, rate=None, ledger=load.ledger).running() as more:
                    await more.until_more(20, "503")
            async with Load(bridge.port, ledger=load.ledger).running() as more:
                await more.until_more(20, "spool")
            await bridge.serving.until_asked("/readyz", 200)


async def test_disk_that_fails_refuses_and_heals_with_a_new_file(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A write that fails is a 503; the file takes no more, what it holds is drained, the next delivery begins another one."""
    async with cut_off(broken, topic_prefix, tmp_path) as (bridge, load):
        with no_file_may_grow(bridge.serving.process.pid):
            await refused(bridge, "spool failed")
            async with Load(bridge.port, rate=None, ledger=load.ledger).running() as more:
                await more.until_more(20, "503")
        async with Load(bridge.port, ledger=load.ledger).running() as more:
            await more.until_more(20, "spool")
        assert len(list((tmp_path / "spool").glob("*.db"))) == 2
        assert load.ledger.outcomes["0"] == 0


async def test_folder_deleted_refuses_and_what_it_held_is_drained(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Nothing is answered 200 that no later process could find; what was open stays readable."""
    async with cut_off(broken, topic_prefix, tmp_path) as (bridge, _):
        await asyncio.to_thread(shutil.rmtree, tmp_path / "spool")
        await refused(bridge, "spool failed")


async def test_file_that_is_no_database_is_set_aside_at_the_start(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Told in the log, in /status and by a metric; everything else is drained."""
    async with cut_off(broken, topic_prefix, tmp_path) as (bridge, _):
        await bridge.kill()
        rubbish = tmp_path / "spool" / "spool-000099.db"
        await asyncio.to_thread(rubbish.write_bytes, b"rubbish" * 1000)
        await bridge.start()
        assert await bridge.serving.counted("instagram_bridge_spool_files_set_aside") == 1
        assert (await bridge.serving.status())["spool"]["files_set_aside"] == 1
        assert "spool_file_set_aside" in bridge.serving.process.stderr
        assert rubbish.with_suffix(".db.corrupt").exists()
