"""A server that may give one person's adapter to another person: it gets none, and nothing is lost for it."""

import asyncio

from claasbot.storage import versions
from claasbot.storage.rows import one


async def state_of(world, table: str) -> str:
    return (await world.store.run(one, f"SELECT state FROM {table}"))["state"]


async def test_the_base_model_answers_where_adapters_would_mix(world):
    await world.taught()
    world.server.restart()
    world.server.faults.mixes_adapters = True
    world.server.seen.loads.clear()
    assert (await world.chat.say("ada", "Still?")).version_name == "base"
    assert await world.server.loaded() == frozenset()
    world.server.faults.mixes_adapters = False
    assert (await world.chat.say("ada", "And now?")).version_name == "p1.v1"


async def test_a_candidate_waits_for_a_server_that_keeps_adapters_apart(world):
    world.server.faults.mixes_adapters = True
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
    await world.chat.wait_mark(str(reply.completion_id), "queued")
    async with asyncio.timeout(10):
        while await state_of(world, "job") != "trained":  # noqa: ASYNC110 - rows are the truth
            await asyncio.sleep(0.005)
    await world.cycle.promoting.step()
    assert await state_of(world, "adapter_version") == "candidate"
    assert await state_of(world, "experience") == "leased"
    world.server.faults.mixes_adapters = False
    await world.chat.wait_mark(str(reply.completion_id), "learned")
    assert (await world.store.run(versions.current, 1)).name == "p1.v1"


async def test_a_version_that_the_server_lists_already_is_checked_too(world):
    """Loaded by an earlier run of the bot, or by somebody else."""
    await world.taught()
    serving = world.cycle.serving
    version = await world.store.run(versions.current, 1)
    serving.lost(version)
    assert version.server_name in await world.server.loaded()
    world.server.faults.mixes_adapters = True
    assert (await serving.policy_of(1)).fell_back
