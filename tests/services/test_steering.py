"""S-26: what an admin does to somebody's versions and its row in the audit are one commit: both or none."""

import sqlite3

import pytest

from claasbot.storage import audit, revocations, versions
from claasbot.storage.rows import rows

HOST = "console:host"


@pytest.fixture
async def taught(world, store):
    """Ada has two lessons; the next row of the audit cannot be written."""
    await world.taught()
    await world.taught(said="In verse.")
    await world.cycle.settled()
    await store.run(lambda db: db.conn.execute(_REFUSE).fetchall())
    return world


_REFUSE = "CREATE TRIGGER refused BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no row today'); END"


@pytest.mark.parametrize("act", ["undo", "roll back", "revoke"])
async def test_what_cannot_be_written_down_is_not_done(taught, store, act):
    steering = taught.cycle.steering
    [first, _] = [row["job_id"] for row in await store.run(rows, "SELECT job_id FROM adapter_version ORDER BY n")]
    with pytest.raises(sqlite3.IntegrityError, match="no row today"):
        match act:
            case "undo":
                await steering.undo(1, HOST)
            case "roll back":
                await steering.roll_back(1, 0, HOST)
            case _:
                await steering.revoke(1, first, HOST)
    assert (await store.run(versions.current, 1)).name == "p1.v2"
    assert not await store.run(revocations.is_asked, 1)
    assert await store.run(audit.latest) == []


async def test_parked_feedback_is_queued_again_with_its_row_or_not_at_all(world, store):
    world.engine.faults.refusal = "too long"
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
    await world.cycle.settled()
    await store.run(lambda db: db.conn.execute(_REFUSE).fetchall())
    with pytest.raises(sqlite3.IntegrityError, match="no row today"):
        await world.cycle.steering.requeue(1, 1, HOST)
    assert await store.run(rows, "SELECT state FROM experience") == [{"state": "quarantined"}]
