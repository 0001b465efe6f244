"""What is old goes, and nothing that a lesson, an undo or an answer still needs."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import pytest

from claasbot.domain.conversation import ChatAddress, Said
from claasbot.domain.retention import RetentionRules
from claasbot.logs import prune
from claasbot.services.retaining import Retaining
from claasbot.storage import audit, completions, lessons, versions
from claasbot.storage.rows import change, one, rows
from tests.services.world import running_world

ADA = 1
TABLES = ("conversation", "turn", "completion", "feedback_event", "experience", "shown_message", "outbox", "comparison")


class Calendar:
    """A clock that a test moves; it never says the same time twice."""

    def __init__(self) -> None:
        self.days = 0.0
        self._tick = count()

    def __call__(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.days, milliseconds=next(self._tick))


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
async def world(tmp_path, settings, store, calendar):
    async with running_world(tmp_path, settings, store, clock=calendar) as world:
        yield world


async def passed(world, **rules: int) -> dict[str, int]:
    retaining = Retaining(world.store, RetentionRules(**rules), world.cycle.clock, partial(prune, world.data / "logs"))
    return await retaining.once()


async def n_rows(world) -> dict[str, int]:
    counts = {}
    for table in TABLES:
        counts[table] = (await world.store.run(one, f"SELECT count(*) AS n FROM {table}"))["n"]
    return counts


async def texts(world) -> str:
    """Everything that is stored of people's words, as one text."""
    found = [await world.store.run(rows, f"SELECT * FROM {table}") for table in TABLES]
    return json.dumps(found)


async def test_nothing_goes_where_the_host_says_nothing(world, calendar):
    await world.taught()
    await world.cycle.settled()
    before = await n_rows(world)
    calendar.days = 10_000
    assert set(await passed(world)) == {"updates"}
    assert await n_rows(world) == before


async def test_old_talk_goes_with_its_prompts_and_what_was_said_of_it(world, calendar):
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "old-question")
    await world.chat.command("ada", "bad", "", str(reply.completion_id))
    await world.chat.command("ada", "retry")
    await world.chat.command("ada", "reset")
    await world.cycle.settled()
    calendar.days = 31
    await world.chat.say("ada", "new-question")
    counts = await passed(world, messages_days=30)
    assert (counts["answers"], counts["messages"], counts["conversations"]) == (2, 1, 1)
    assert "old-question" not in await texts(world)
    assert (await n_rows(world))["completion"] == 1
    assert await world.store.run(rows, "PRAGMA foreign_key_check") == []
    assert "new-question" in await texts(world)


async def test_a_conversation_that_goes_on_loses_its_old_part_and_begins_with_a_question(world, calendar):
    for day in range(6):
        calendar.days = 10 * day
        await world.chat.say("ada", f"question-{day}")
    assert (await passed(world, messages_days=25))["answers"] == 3
    await world.chat.say("ada", "And now?")
    asked = [message for message in world.server.seen.requests[-1].messages if message.role != "system"]
    assert [message.content for message in asked if message.role == "user"] == [
        "question-3",
        "question-4",
        "question-5",
        "And now?",
    ]
    assert asked[0].role == "user"


async def test_a_question_stays_as_long_as_the_answer_to_it(world, calendar):
    await world.chat.say("ada", "What is rain?")
    await world.store.run(change, "UPDATE turn SET created_at = '2025-01-01' WHERE role = 'user'")
    assert await passed(world, messages_days=30) == {}
    assert (await n_rows(world))["turn"] == 2


async def test_what_waits_to_be_learned_keeps_its_answer(world, calendar):
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
    await world.chat.command("ada", "reset")
    calendar.days = 300
    assert "answers" not in await passed(world, messages_days=30, lessons_days=30)
    await world.cycle.steering.set_paused(False, "console:host")
    await world.chat.wait_mark(str(reply.completion_id), "learned")
    assert (await world.chat.say("ada", "And snow?")).version_name == "p1.v1"


async def test_what_was_learned_keeps_what_another_rebuild_needs_for_as_long_as_the_host_says(world, calendar):
    await world.taught(said="old-note")
    await world.cycle.settled()
    calendar.days = 100
    await passed(world, messages_days=30, lessons_days=200)
    assert "old-note" in await texts(world)
    [learned] = await world.store.run(lessons.consumed, ADA, 10)
    assert (await world.store.run(completions.completion, learned.completion_id)).completion.token_ids
    calendar.days = 201
    await passed(world, messages_days=30, lessons_days=200)
    assert "old-note" not in await texts(world) and "What is rain?" not in await texts(world)


async def test_of_a_lesson_too_old_only_the_skeleton_stays_and_the_next_one_builds_on_it(world, calendar):
    await world.taught(said="old-note")
    calendar.days = 100
    await passed(world, messages_days=30, lessons_days=30)
    assert await world.store.run(rows, "SELECT state, consumed_by FROM experience") == [
        {"state": "consumed", "consumed_by": 1}
    ]
    assert await world.taught(said="new-note") == "p1.v2"
    job = world.engine.seen.ran[-1]
    assert [len(row.prompt_ids) > 0 for row in job.earlier] == []
    assert "old-note" not in json.dumps([str(row.teacher_messages) for row in job.experiences])
    assert await world.store.run(rows, "PRAGMA foreign_key_check") == []


async def test_a_pass_goes_on_after_a_page_and_ends(world, calendar):
    for number in range(60):
        await world.chat.say(f"person-{number}", "What is rain?")
    await world.cycle.settled()
    calendar.days = 31
    counts = await passed(world, messages_days=30)
    assert (counts["answers"], counts["messages"], counts["conversations"]) == (60, 60, 60)
    assert await passed(world, messages_days=30) == {}


async def test_a_branch_outlives_the_turn_that_it_grew_from(world, calendar):
    first = await world.chat.say("ada", "old-question")
    await world.chat.say("ada", "old-digression")
    calendar.days = 31
    ada = world.chat.chat_of("ada")
    reply_to = str(first.completion_id)
    await world.chat.post(
        Said(address=ada, account="ada", update_key="b", message_key="b", text="new-branch", reply_to=reply_to)
    )
    await world.cycle.settled()
    await passed(world, messages_days=30)
    await world.chat.say("ada", "And now?")
    asked = world.server.seen.requests[-1].messages
    assert [message.content for message in asked if message.role == "user"] == ["new-branch", "And now?"]


async def test_updates_that_are_long_done_go_whoever_sent_them(world, calendar):
    await world.chat.say("ada", "What is rain?")
    await world.cycle.settled()
    await world.store.run(change, "UPDATE inbox SET account = 'a stranger'")
    calendar.days = 31
    await world.chat.say("ada", "And snow?")
    await world.cycle.settled()
    assert (await passed(world))["updates"] == 1
    assert [row["account"] for row in await world.store.run(rows, "SELECT account FROM inbox")] == ["ada"]


async def test_codes_that_are_over_go_with_the_strangers_names(world, calendar):
    stranger = ChatAddress(platform="console", bot_account="console", chat="eve")
    sql = "INSERT INTO pairing VALUES ('CODE', 'telegram', '7', 'Eve', '42', ?, '2026-01-01')"
    await world.store.run(change, sql, stranger.chat)
    calendar.days = 1
    assert await passed(world) == {"codes": 1}
    assert await world.store.run(rows, "SELECT * FROM pairing") == []


async def taught_often(world, n: int) -> None:
    for number in range(n):
        await world.taught(said=f"Note {number}.")


async def left_on_disk(world) -> set[str]:
    """The folders of versions, once the files of those that are to go have gone."""
    await world.cycle.revoking.step()
    return {path.name for path in (world.data / "adapters" / "p1").iterdir()}


async def test_old_versions_go_and_those_that_undo_leads_to_stay(world):
    await taught_often(world, 5)
    assert (await passed(world, versions=2))["versions"] == 2
    assert await left_on_disk(world) == {"v3", "v4", "v5"}
    assert (await passed(world, versions=2)) == {}
    for name in ("p1.v4", "p1.v3", "base"):
        await world.chat.command("ada", "undo")
        assert (await world.chat.say("ada", "Hm?")).version_name == name
    assert await world.store.run(versions.current, ADA) is None


async def test_the_version_that_answers_never_goes(world):
    await taught_often(world, 3)
    await world.chat.command("ada", "undo")
    await passed(world, versions=1)
    assert await left_on_disk(world) == {"v1", "v2"}
    assert (await world.chat.say("ada", "Hm?")).version_name == "p1.v2"


async def test_versions_stay_while_their_person_is_being_taught(world):
    await taught_often(world, 3)
    hold = asyncio.Event()
    world.engine.faults.before_step = hold.wait
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "In verse.", str(reply.completion_id))
    await world.chat.wait_mark(str(reply.completion_id), "queued")
    assert "versions" not in await passed(world, versions=1)
    hold.set()
    await world.cycle.settled()


async def test_the_gone_are_not_in_the_server_either(world):
    await taught_often(world, 3)
    first = (await world.store.run(versions.of_person, ADA))[-1]
    await passed(world, versions=1)
    await left_on_disk(world)
    assert first.server_name in world.server.seen.forgotten


async def test_logs_that_are_too_old_go(world, calendar):
    logs = world.data / "logs"
    logs.mkdir()
    old, new = logs / "bot.log.1", logs / "bot.log.2"
    for path, day in ((old, 1), (new, 40)):
        path.write_text("a line")
        at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)).timestamp()
        os.utime(path, (at, at))
    calendar.days = 45
    assert (await passed(world, log_days=14))["logs"] == 1
    assert not old.exists() and new.exists()


async def test_what_went_is_written_down_once_a_day(world, calendar):
    await world.chat.say("ada", "What is rain?")
    await world.cycle.settled()
    rules = RetentionRules(messages_days=30)
    retaining = Retaining(world.store, rules, calendar, lambda today, days: 0)
    for day in (0.0, 31.0, 31.5, 31.9, 32.1, 10.0, 10.5):  # the clock was put back at the end
        calendar.days = day
        await retaining.step()
    switched = await world.store.run(one, "SELECT value FROM switch WHERE name = 'retained'")
    assert switched["value"].startswith("2026-01-11")
    told = [row["did"] for row in await world.store.run(audit.latest)]
    assert told == ["deleted what was old: answers 1, conversations 1, messages 1, updates 1"]


async def test_answers_come_while_a_pass_is_under_way(world, calendar):
    for number in range(120):
        await world.chat.say(f"person-{number}", "What is rain?")
    await world.cycle.settled()
    calendar.days = 31
    passing = asyncio.create_task(passed(world, messages_days=30))
    answered = 0
    while not passing.done():
        assert (await world.chat.say("ada", "Still there?")).text
        answered += 1
    assert answered and (await passing)["answers"] == 120
