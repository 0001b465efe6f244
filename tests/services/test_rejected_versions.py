"""The files of candidates that were rejected: the latest stay to be looked at, older ones go once the server let go."""

import asyncio

from claasbot.storage import versions


async def refused(world, n: int) -> None:
    """`n` pieces of feedback whose candidates are loaded and then fail the canary."""
    world.server.faults.garbles = 5.0
    await world.chat.command("ada", "optin")
    for _ in range(n):
        reply = await world.chat.say("ada", "What is rain?")
        await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
        await world.chat.wait_mark(str(reply.completion_id), "refused")
    await world.cycle.settled()


async def wait_for_folders(world, *names: str) -> None:
    """The files go after the rows have settled."""
    async with asyncio.timeout(10):
        while {folder.name for folder in (world.data / "adapters" / "p1").iterdir()} != set(names):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_only_the_latest_rejected_versions_keep_their_files(world):
    await refused(world, 5)
    assert [version.state for version in await world.store.run(versions.of_person, 1)] == ["rejected"] * 5
    await wait_for_folders(world, "v3", "v4", "v5")
    assert len(world.server.seen.forgotten) == 2
    assert (await world.server.info()).base_model == "scripted"  # it dies of a folder that goes while it reads it


async def test_what_answers_or_answered_keeps_its_files(world):
    await world.taught()
    await world.taught(said="In verse.")
    await refused(world, 5)
    await wait_for_folders(world, "v1", "v2", "v5", "v6", "v7")
    world.server.faults.garbles = 0.0
    assert (await world.chat.say("ada", "And now?")).version_name == "p1.v2"


async def test_files_stay_where_the_server_cannot_let_go_of_them(world):
    world.server.faults.cannot_forget = True
    await refused(world, 5)
    await world.cycle.promoting.prune(1)
    await wait_for_folders(world, "v1", "v2", "v3", "v4", "v5")
    assert (await world.server.info()).base_model == "scripted"
