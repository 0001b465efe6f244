"""After an erasure no byte of a person is left: database, journal, versions, exports, logs (S-21).

Twenty strings that occur nowhere else go in by every door; first each is found in the data folder, then none.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from pathlib import Path

import pytest

from claasbot.data_folder import DataFolder
from claasbot.domain.conversation import Attachment, ChatAddress, Commanded, Deleted, Edited, Said
from claasbot.errors import EngineDown
from claasbot.services.erasing import Erasing
from claasbot.storage import audit, lessons
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.contracts.test_training_engine import TrainingEngineContract
from tests.engines.fake_trainer import fake_local
from tests.services.traces import found_in, logged
from tests.services.world import World, running_world

TEAM = ChatAddress(platform="console", bot_account="console", chat="team")
NAMES = (
    *("account", "display", "question", "feedback", "correction", "persona", "comparison", "filename", "filetext"),
    *("grouptext", "quote", "oldtalk", "edited", "deleted", "remark", "forwarded", "refused", "unknown", "thumbtext"),
    "retried",
)
NEVER_STORED = frozenset({"unknown", "refused"})
"""Said, and not taken: a command that there is not, and what was answered with an error."""


def canaries() -> dict[str, str]:
    assert len(NAMES) == 20
    return {name: f"{name}-{secrets.token_hex(6)}" for name in NAMES}


@pytest.fixture
async def disk(tmp_path: Path):
    data = DataFolder(root=tmp_path)
    data.make()
    store = Store(data.database)
    await store.open()
    with logged(tmp_path):
        yield store
    await store.close()


async def lives(world: World, words: dict[str, str]) -> None:
    """One person does everything that people do, in private and in a group."""
    account = words["account"]
    address = world.chat.chat_of(account)

    async def say(text: str, key: str, where: ChatAddress = address, **more) -> None:
        since = len(world.chat.shown)
        name = words["display"]
        await world.chat.post(
            Said(address=where, account=account, display_name=name, update_key=key, message_key=key, text=text, **more)
        )
        await world.chat.wait_for(lambda one: one.kind == "reply" and one.reply_to == key, since=since)

    await say(words["oldtalk"], "m0")
    await world.chat.command(account, "reset")
    await world.chat.command(account, "persona", words["persona"])
    await world.chat.command(account, "optin")
    first = await world.chat.say(account, words["question"])
    await world.chat.command(account, "feedback", words["feedback"], str(first.completion_id))
    await world.chat.wait_mark(str(first.completion_id), "learned")
    second = await world.chat.say(account, "And snow?")
    await world.chat.command(account, "correct", words["correction"], str(second.completion_id))
    await world.chat.wait_mark(str(second.completion_id), "learned")
    third = await world.chat.say(account, "And hail?")
    await world.chat.command(account, "bad", words["thumbtext"], str(third.completion_id))
    await world.chat.command(account, "compare", words["comparison"])
    world.chat.files["f"] = words["filetext"]
    file = Attachment(name=f"{words['filename']}.txt", reference="f", n_bytes=20)
    await say("Sum it up", "m1", attachments=(file,))
    await say(words["retried"], "m2")
    await world.chat.command(account, "retry")
    await say("And this?", "m3", reply_to=str(third.completion_id), quote=words["quote"])
    await say(words["forwarded"], "m4", is_forwarded=True)
    await say(f"No, that is wrong: {words['remark']}", "m5")
    await say("Before the edit", "m6")
    await world.chat.post(
        Edited(address=address, account=account, update_key="e", message_key="m6", text=words["edited"])
    )
    await say(words["deleted"], "m7")
    await world.chat.post(Deleted(address=address, account="", update_key=words["account"], message_key="m7"))
    await say(words["grouptext"], "g1", TEAM, is_group=True)
    await world.chat.post(
        Commanded(address=address, account=account, update_key="x", command=words["unknown"], argument=words["refused"])
    )
    await world.store.run(audit.add, f"console:{account}", "let in", world.cycle.clock(), whom=f"console:{account}")
    await world.cycle.settled()


async def test_no_byte_of_a_person_is_left_on_the_disk_and_a_restart_brings_nobody_back(tmp_path, settings, disk):
    words = canaries()
    async with running_world(tmp_path, settings, disk) as world:
        await world.taught("bob", said="Keep me.")
        await lives(world, words)
        before = found_in(tmp_path, words)
        assert {name for name, _ in before} >= set(NAMES) - NEVER_STORED
        began = time.perf_counter()
        async with world.cycle.exporting.made(2):
            reply = await world.chat.press(words["account"], "forget:yes")
        took_s = time.perf_counter() - began
        assert "Forgotten" in reply.text and took_s < 60
        await world.cycle.settled()
        left = found_in(tmp_path, words)
        print(f"canaries {len(words)}, hits before {len(before)}, after {len(left)}, {took_s:.2f} s")
        assert left == set()
        assert world.chat.forgotten == [words["account"]]
    async with running_world(tmp_path, settings, disk) as again:
        assert (await again.chat.say("bob", "Still there?")).version_name == "p1.v1"
        assert [row["id"] for row in await disk.run(rows, "SELECT id FROM person")] == [1]
        assert found_in(tmp_path, words) == set()


async def test_the_log_never_held_what_people_said_or_who_they_are(tmp_path, settings, disk):
    """Before any erasure: what is not written needs not be found again in rotated and copied files."""
    words = canaries()
    async with running_world(tmp_path, settings, disk) as world:
        await lives(world, words)
        world.server.faults.is_down = True
        await world.chat.post(
            Said(address=world.chat.chat_of(words["account"]), account=words["account"], update_key="z",
                 message_key="z", text=words["question"])
        )  # fmt: skip
        await world.chat.wait_for(lambda one: "model" in one.text and one.kind == "notice")
        world.server.faults.is_down = False
        await world.cycle.settled()
    assert (tmp_path / "logs" / "bot.log").stat().st_size > 0
    assert found_in(tmp_path / "logs", words) == set()


async def test_the_job_folder_of_a_lesson_that_runs_goes_with_the_trainer_that_reads_it(tmp_path, settings, store):
    """With a trainer process: the folder holds people's text, and its file is open."""
    words = canaries()
    local = fake_local(tmp_path)
    (tmp_path / "behaviour").write_text("hang")
    try:
        async with running_world(tmp_path, settings, store) as world:
            world.engine.faults.before_step = asyncio.Event().wait
            await world.chat.command("ada", "optin")
            reply = await world.chat.say("ada", "What is rain?")
            await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
            await world.chat.wait_mark(str(reply.completion_id), "queued")
            [leased] = await store.run(lessons.open_jobs, world.cycle.clock())
            job = replace(TrainingEngineContract().job(tmp_path / "adapters" / "p1"), job_id=leased.job_id)
            message = replace(job.experiences[0].messages[0], content=words["question"])
            experience = replace(job.experiences[0], messages=(message,), correction=words["correction"])
            running = asyncio.create_task(local.run(replace(job, experiences=(experience,))))
            async with asyncio.timeout(30):
                while not (tmp_path / "jobs" / job.job_id / "claimed").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert {name for name, _ in found_in(tmp_path, words)} == {"question", "correction"}
            outside = world.cycle.outside
            erasing = Erasing(store, world.cycle.serving, local, tmp_path, world.cycle.clock, outside.restart_server)
            await erasing.forget(1)
            assert found_in(tmp_path, words) == set()
            with pytest.raises(EngineDown):
                await running
    finally:
        await local.close()
