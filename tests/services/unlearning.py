"""What tests of lessons that are taken back do and look at."""

from __future__ import annotations

from sqlite_utils import Database

from claasbot.storage import lessons, revocations, versions
from claasbot.storage.rows import rows
from tests.services.world import World


async def teach(world: World, *wishes: str, account: str = "ada") -> None:
    """A lesson from each."""
    await world.chat.command(account, "optin")
    for wish in wishes:
        await world.chat.wait_mark(await wish_for(world, wish, account), "learned")


async def wish_for(world: World, wish: str, account: str = "ada") -> str:
    """Said and noted; returns the key of the answer that it is about."""
    reply = await world.chat.say(account, "What is rain?")
    await world.chat.command(account, "feedback", wish, str(reply.completion_id))
    return str(reply.completion_id)


async def unlearn(world: World, lesson_n: int, account: str = "ada") -> str:
    """What is answered when lesson `lesson_n` is named and the question confirmed."""
    card = await world.chat.command(account, "unlearn", str(lesson_n))
    return (await world.chat.press(account, card.buttons[0].action)).text


async def held(world: World) -> list[str]:
    """Of every experience, the version that it taught, or its state where it taught none that stands."""
    found = await world.store.run(
        rows,
        "SELECT experience.state, n FROM experience"
        " LEFT JOIN adapter_version ON adapter_version.id = consumed_by ORDER BY experience.id",
    )
    return [f"v{row['n']}" if row["state"] == "consumed" else row["state"] for row in found]


async def learned_once(world: World) -> tuple[int, int]:
    """Promise 2 with rebuilds, as counts of what breaks it: experiences doubled, experiences lost.

    What stands was taught as new by exactly one version in the line of the pointer. A version teaches what its job
    leased; a rebuilt one teaches what it went through again, and the versions that taught that first are in no line.
    """
    return await world.store.run(_doubled_and_lost)


async def assert_learned_once(world: World) -> None:
    assert await learned_once(world) == (0, 0)


def _doubled_and_lost(db: Database) -> tuple[int, int]:
    n_doubled, n_lost = 0, 0
    for person in rows(db, "SELECT id, current_version_id FROM person"):
        in_line = {standing.version_id for standing in revocations.line(db, person["current_version_id"])}
        taught = [experience_id for version_id in in_line for experience_id in _taught_by(db, version_id)]
        sql = "SELECT id, consumed_by FROM experience WHERE person_id = ? AND state = 'consumed'"
        stands = {row["id"]: row["consumed_by"] for row in rows(db, sql, person["id"])}
        n_doubled += len(taught) - len(set(taught))
        n_lost += sum(one not in taught or by not in in_line for one, by in stands.items())
    return n_doubled, n_lost


def _taught_by(db: Database, version_id: int) -> list[int]:
    job = lessons.job(db, versions.version(db, version_id).job_id)
    again = [row for _, group in revocations.replayed(db, job.job_id) for row in group]
    return [row.experience_id for row in (again if job.is_rebuild else lessons.of_job(db, job.job_id))]
