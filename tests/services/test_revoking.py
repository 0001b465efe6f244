"""One lesson taken back, not only the last: the weights are built again without it, from the log as it is then.

S-21 for one lesson: what it taught has left every weight, file and teacher's prompt.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from claasbot.domain.job import TrainingJob, lesson_seed
from claasbot.engines.dry_run import DryRunEngine
from claasbot.errors import NotFound
from claasbot.inference.scripted import toy_logprobs
from claasbot.settings import Settings
from claasbot.storage import erasure, lessons, revocations, versions
from claasbot.storage.rows import change, one, rows
from claasbot.storage.store import Store
from tests.services.unlearning import assert_learned_once, held, teach, unlearn, wish_for
from tests.services.world import World, running_world

WISHES = ("In one sentence.", "In verse.", "With a joke.", "In capitals.")


async def answers(world: World, account: str = "ada") -> str:
    return (await world.chat.say(account, "Hm?")).version_name


def trained(job: TrainingJob) -> list[list[int]]:
    return [[row.experience_id for row in lesson.experiences] for lesson in job.lessons]


def read_by_teacher(job: TrainingJob) -> list[list[str]]:
    """Which of the wishes each lesson's teacher reads."""
    asked = [row.teacher_messages[-1].content for lesson in job.lessons for row in lesson.experiences]
    return [[wish for wish in WISHES if wish in content] for content in asked]


def folders(world: World) -> set[str]:
    return {path.name for path in (world.data / "adapters" / "p1").iterdir() if not path.name.startswith(".")}


async def until(is_so) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - files and rows signal nothing to a test
            await asyncio.sleep(0.02)


async def until_job(store: Store, state: str) -> None:
    """Until the rebuild's job is in that state."""
    async with asyncio.timeout(10):
        while (await store.run(one, "SELECT state FROM job WHERE is_rebuild"))["state"] != state:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Held:
    """A trainer that waits in the middle of a job until it is let go."""

    def __init__(self, world: World) -> None:
        self.runs, self.go_on = asyncio.Event(), asyncio.Event()
        world.engine.faults.before_step = self._wait

    async def _wait(self) -> None:
        self.runs.set()
        await self.go_on.wait()


def fails_rebuilds(world: World, *, drift_nats: float = 0.0, refusal: str | None = None) -> None:
    """From now on every rebuild meets these faults, and no other job does."""

    async def switch() -> None:
        is_rebuild = bool(world.engine.seen.ran[-1].lessons_before)
        world.engine.faults.drift_nats = drift_nats if is_rebuild else 0.0
        world.engine.faults.refusal = refusal if is_rebuild else None

    world.engine.faults.before_step = switch


async def test_a_lesson_in_the_middle_is_taken_back_and_the_others_stay(world):
    await teach(world, *WISHES)
    assert "goes on answering" in await unlearn(world, 2)
    await world.cycle.settled()
    assert await answers(world) == "p1.v5"
    assert await held(world) == ["v1", "withdrawn", "v5", "v5"]
    assert trained(world.engine.seen.ran[-1]) == [[3], [4]]
    assert (await world.store.run(versions.version_named, 1, 5)).parent_id == 1
    await assert_learned_once(world)


async def test_no_teacher_reads_what_was_taken_back(world):
    await teach(world, *WISHES)
    assert read_by_teacher(world.engine.seen.ran[-1]) == [list(WISHES)]
    await unlearn(world, 2)
    await world.cycle.settled()
    one_, _, three, four = WISHES
    assert read_by_teacher(world.engine.seen.ran[-1]) == [[one_, three], [one_, three, four]]
    await teach(world, "Five words.")
    assert read_by_teacher(world.engine.seen.ran[-1]) == [[one_, three, four]]
    assert 2 not in [row.experience_id for row in world.engine.seen.ran[-1].earlier]


async def test_the_weights_are_those_of_a_log_that_never_held_the_lesson(tmp_path, settings):
    """Bit for bit: on a copy of the data folder, the row is deleted and everything is learned from the base model."""
    async with on_disk(tmp_path / "one", settings) as world:
        await teach(world, *WISHES)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    async with on_disk(tmp_path / "one", settings) as world:
        await unlearn(world, 2)
        await world.cycle.settled()
        revoked = await world.store.run(versions.current, 1)
    store = Store(tmp_path / "other" / "claasbot.db")
    await store.open()
    await store.run(_as_if_never_said, 2)
    await store.close()
    async with on_disk(tmp_path / "other", settings) as world:
        await world.cycle.settled()
        never = await world.store.run(versions.current, 1)
        assert trained(world.engine.seen.ran[-1]) == [[1], [3], [4]]
    assert (never.n, never.parent_id, revoked.parent_id) == (5, None, 1)
    assert never.weights_sha256 == revoked.weights_sha256


def _as_if_never_said(db, experience_id: int) -> None:
    """No row of it is left, and no file of a version: only a rebuild from the base model can answer."""
    change(db, "DELETE FROM outbox WHERE experience_id = ?", experience_id)
    change(db, "DELETE FROM experience WHERE id = ?", experience_id)
    change(db, "DELETE FROM feedback_event WHERE id = ?", experience_id)
    change(db, "UPDATE adapter_version SET files_removed_at = created_at")
    change(db, "INSERT INTO revocation (person_id, asked_at) VALUES (1, '')")


class on_disk:
    """A world whose database is a file, so that it can be copied and opened again."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self._store = Store(data / "claasbot.db")
        self._running = running_world(data, settings, self._store)

    async def __aenter__(self) -> World:
        await self._store.open()
        return await self._running.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await self._running.__aexit__()
        await self._store.close()


async def test_the_first_lesson_taken_back_rebuilds_the_others_from_the_base_model(world):
    await teach(world, *WISHES[:3])
    await unlearn(world, 1)
    await world.cycle.settled()
    assert trained(world.engine.seen.ran[-1]) == [[2], [3]]
    assert (await world.store.run(versions.current, 1)).parent_id is None
    assert await answers(world) == "p1.v4"


async def test_a_rebuild_from_the_base_model_begins_as_if_its_first_lesson_had_been_the_first(world):
    await teach(world, *WISHES[:3])
    await unlearn(world, 1)
    await world.cycle.settled()
    rebuilt = world.engine.seen.ran[-1]
    assert rebuilt.parent_folder is None
    assert rebuilt.seed == lesson_seed(rebuilt.lessons[0].experiences, rebuilt.lessons[0].recipe)
    assert [row.experience_id for row in rebuilt.lessons[0].experiences] == [2]


async def test_the_last_lesson_taken_back_needs_no_trainer(world):
    await teach(world, *WISHES[:2])
    n_jobs = len(world.engine.seen.ran)
    assert await unlearn(world, 2) == "Taken back: p1.v1 answers you now."
    assert await unlearn(world, 1) == "Taken back: the base model answers you now."
    assert await answers(world) == "base"
    assert len(world.engine.seen.ran) == n_jobs
    await until(lambda: folders(world) == set())


async def test_what_held_the_lesson_is_unloaded_and_deleted_and_what_did_not_stays(world):
    await teach(world, *WISHES)
    held_it = [(await world.store.run(versions.version_named, 1, n)).server_name for n in (2, 3, 4)]
    await unlearn(world, 2)
    await until(lambda: folders(world) == {"v1", "v5"})
    assert set(held_it) <= set(world.server.seen.forgotten)
    assert not {name for name in await world.server.loaded() if name in held_it}
    gone = [await world.store.run(versions.version_named, 1, n) for n in (2, 3, 4)]
    assert {version.state for version in gone} == {"quarantined"}


async def test_rejected_candidates_go_too_because_nobody_knows_what_they_had_tried(world):
    world.engine.faults.drift_nats = 99.0
    await world.chat.command("ada", "optin")
    await world.chat.wait_mark(await wish_for(world, WISHES[0]), "refused")
    world.engine.faults.drift_nats = 0.0
    await teach(world, *WISHES[1:3])
    assert {"v1", "v2"} <= folders(world)
    await unlearn(world, 3)
    await until(lambda: folders(world) == {"v5"})


async def test_the_version_before_goes_on_answering_until_the_rebuilt_one_may(world):
    await teach(world, *WISHES[:3])
    trainer = Held(world)
    assert "p1.v3 goes on answering" in await unlearn(world, 1)
    await trainer.runs.wait()
    assert await answers(world) == "p1.v3"
    assert await held(world) == ["withdrawn", "v2", "v3"]
    trainer.go_on.set()
    await world.cycle.settled()
    assert await answers(world) == "p1.v4"
    told = world.chat.said_to("ada", "notice")[-1].text
    assert "In one sentence." in told and "p1.v4 answers now" in told


async def test_new_feedback_waits_for_the_rebuild_and_builds_on_it(world):
    await teach(world, *WISHES[:3])
    trainer = Held(world)
    await unlearn(world, 1)
    await trainer.runs.wait()
    key = await wish_for(world, WISHES[3])
    assert (await held(world))[3] == "queued"
    trainer.go_on.set()
    await world.chat.wait_mark(key, "learned")
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "v4", "v4", "v5"]
    rebuilt = await world.store.run(versions.version_named, 1, 4)
    assert (await world.store.run(versions.current, 1)).parent_id == rebuilt.version_id
    await assert_learned_once(world)


async def test_feedback_waits_while_a_lesson_is_to_be_taken_back(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await teach(world, *WISHES[:2])
        await world.cycle.steering.set_paused(True, "console:host")
        await wish_for(world, WISHES[2])
    now = world.cycle.clock()
    assert [person.n_queued for person in await store.run(lessons.waiting, now)] == [1]
    await store.run(revocations.ask, 1, (1,), now)
    assert await store.run(lessons.waiting, now) == ()


async def test_two_lessons_taken_back_at_once_make_one_version(world):
    await teach(world, *WISHES)
    trainer = Held(world)
    await unlearn(world, 2)
    await trainer.runs.wait()
    await unlearn(world, 3)
    trainer.go_on.set()
    await world.cycle.settled()
    assert await held(world) == ["v1", "withdrawn", "withdrawn", "v6"]
    jobs = await world.store.run(rows, "SELECT state FROM job WHERE is_rebuild ORDER BY version_n")
    assert [job["state"] for job in jobs] == ["abandoned", "promoted"]
    assert await answers(world) == "p1.v6"
    await until(lambda: folders(world) == {"v1", "v6"})


async def test_a_lesson_that_runs_meanwhile_begins_again_without_what_was_taken_back(world):
    await teach(world, *WISHES[:2])
    trainer = Held(world)
    key = await wish_for(world, WISHES[2])
    await trainer.runs.wait()
    await unlearn(world, 1)
    trainer.go_on.set()
    await world.chat.wait_mark(key, "learned")
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "v4", "v5"]
    assert read_by_teacher(world.engine.seen.ran[-1]) == [[WISHES[1], WISHES[2]]]
    await until(lambda: folders(world) == {"v4", "v5"})
    await assert_learned_once(world)


async def test_a_rebuilt_version_that_is_refused_leaves_the_line_before_the_lesson(world):
    await teach(world, *WISHES)
    fails_rebuilds(world, drift_nats=99.0)
    await unlearn(world, 2)
    await world.cycle.settled()
    jobs = await world.store.run(rows, "SELECT state, is_rebuild FROM job ORDER BY version_n")
    assert [job["state"] for job in jobs if job["is_rebuild"]] == ["rejected"]
    assert trained(world.engine.seen.ran[-1]) == [[3, 4]]
    assert await held(world) == ["v1", "withdrawn", "v6", "v6"]
    assert (await world.store.run(versions.current, 1)).parent_id == 1
    assert any("one by one" in notice.text for notice in world.chat.said_to("ada", "notice"))
    await assert_learned_once(world)


async def test_a_trainer_that_cannot_rebuild_leaves_the_line_before_the_lesson(world):
    await teach(world, *WISHES[:3])
    fails_rebuilds(world, refusal="its prompt renders to other ids")
    await unlearn(world, 1)
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "v5", "v5"]
    assert (await world.store.run(one, "SELECT state FROM job WHERE is_rebuild"))["state"] == "dead"
    await assert_learned_once(world)


async def test_undo_afterwards_goes_before_the_lesson_that_was_taken_back(world):
    await teach(world, *WISHES)
    undo_of_the_third = next(
        notice.buttons[-1].action for notice in world.chat.said_to("ada", "notice") if "With a joke." in notice.text
    )
    await unlearn(world, 2)
    await world.cycle.settled()
    assert "/unlearn 3 takes it back" in (await world.chat.press("ada", undo_of_the_third)).text
    told = await world.chat.command("ada", "undo")
    assert told.text == "Undone, 2 lessons: p1.v1 answers you now."
    assert await held(world) == ["v1", "withdrawn", "withdrawn", "withdrawn"]
    await world.chat.command("ada", "undo")
    assert await answers(world) == "base"


async def test_a_lesson_of_a_rebuilt_version_can_be_taken_back_by_its_old_number(world):
    await teach(world, *WISHES)
    await unlearn(world, 1)
    await world.cycle.settled()
    card = await world.chat.command("ada", "unlearn")
    assert [line.partition(":")[0] for line in card.text.splitlines()[1:]] == ["4", "3", "2"]
    assert [button.action for button in card.buttons] == ["unlearn:4:1", "unlearn:3:1", "unlearn:2:1"]
    await unlearn(world, 3)
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "v6", "withdrawn", "v6"]
    await until(lambda: folders(world) == {"v6"})
    listed = (await world.chat.command("ada", "learned")).text
    assert "p1.v3: “With a joke.”" in listed and "p1.v5" not in listed
    assert [line.endswith("(undone)") for line in listed.splitlines()] == [False, True, False, True]


@pytest.mark.parametrize("cut", ["while it trains", "before it is judged", "before the files are gone"])
async def test_a_crash_at_any_hand_off_is_gone_on_from_rows(tmp_path, settings, store, cut):
    async with running_world(tmp_path, settings, store) as world:
        await teach(world, *WISHES)
        trainer = Held(world)
        await unlearn(world, 2)
        await trainer.runs.wait()
        if cut != "while it trains":
            world.server.faults.is_down = cut == "before it is judged"
            world.server.faults.cannot_forget = True
            trainer.go_on.set()
            state = "trained" if world.server.faults.is_down else "promoted"
            await until_job(store, state)
    async with running_world(tmp_path, settings, store) as world:
        await world.cycle.settled()
        await until(lambda: folders(world) == {"v1", "v5"})
        assert await held(world) == ["v1", "withdrawn", "v5", "v5"]
        assert await answers(world) == "p1.v5"
        await assert_learned_once(world)


async def test_a_revocation_that_a_crash_left_alone_is_begun_at_the_next_start(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await teach(world, *WISHES[:2])
    await store.run(revocations.ask, 1, (1,), world.cycle.clock())
    async with running_world(tmp_path, settings, store) as world:
        await world.cycle.settled()
        assert await held(world) == ["withdrawn", "v3"]


async def test_somebody_who_is_forgotten_during_a_rebuild_leaves_nothing(world):
    await teach(world, *WISHES[:3])
    trainer = Held(world)
    await unlearn(world, 1)
    await trainer.runs.wait()
    forgetting = asyncio.create_task(world.cycle.erasing.forget(1))
    await asyncio.sleep(0)
    trainer.go_on.set()
    await forgetting
    for table, which in erasure._OWNED.items():
        assert await world.store.run(rows, f"SELECT 1 FROM {table} WHERE {which}", 1) == [], table
    for table in ("replay", "revoked_experience", "revocation"):
        assert await world.store.run(rows, f"SELECT 1 FROM {table}") == [], table
    assert not (world.data / "adapters" / "p1").exists()
    assert await answers(world) == "base"


async def test_what_may_not_be_learned_any_more_goes_with_the_lesson_and_is_said_before(world):
    await teach(world, *WISHES[:3])
    await world.store.run(change, "UPDATE completion SET emptied_at = created_at WHERE id = 2")
    card = await world.chat.command("ada", "unlearn", "1")
    assert "The lesson after it is learned again" in card.text
    assert "1 later piece of feedback would go too: its messages are not kept any more." in card.text
    await world.chat.press("ada", card.buttons[0].action)
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "withdrawn", "v4"]
    assert "1 later piece of feedback went with it" in world.chat.said_to("ada", "notice")[-1].text


async def test_without_consent_nothing_is_learned_again(world):
    await teach(world, *WISHES[:3])
    await world.chat.command("ada", "optout")
    card = await world.chat.command("ada", "unlearn", "2")
    assert "1 later piece of feedback would go too: you withdrew your consent." in card.text
    n_jobs = len(world.engine.seen.ran)
    assert (await world.chat.press("ada", card.buttons[0].action)).text == "Taken back: p1.v1 answers you now."
    assert len(world.engine.seen.ran) == n_jobs
    assert await held(world) == ["v1", "withdrawn", "withdrawn"]


async def test_consent_withdrawn_during_a_rebuild_makes_it_begin_again_without_that(world):
    await teach(world, *WISHES[:3])
    trainer = Held(world)
    await unlearn(world, 1)
    await trainer.runs.wait()
    await world.chat.command("ada", "optout")
    trainer.go_on.set()
    await world.cycle.settled()
    assert await answers(world) == "base"
    assert await held(world) == ["withdrawn"] * 3


async def test_an_undo_during_a_rebuild_is_not_taken_back_by_it(world):
    await teach(world, *WISHES[:3])
    trainer = Held(world)
    await unlearn(world, 1)
    await trainer.runs.wait()
    assert "p1.v2 answers" in (await world.chat.command("ada", "undo")).text
    trainer.go_on.set()
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "v5", "withdrawn"]


async def test_feedback_that_was_taken_back_too_late_can_be_unlearned_alone(world):
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "optin")
    first = await wish_for(world, WISHES[0])
    reply = await world.chat.say("ada", "And snow?")
    await world.chat.react("ada", str(reply.completion_id), "👎")
    asked = await world.chat.wait_for(lambda shown: "What was wrong" in shown.text)
    await world.chat.press("ada", asked.reply.buttons[0].action)
    await world.cycle.steering.set_paused(False, "console:host")
    await world.chat.wait_mark(first, "learned")
    await world.cycle.settled()
    await world.chat.react("ada", str(reply.completion_id), "👎", removed=True)
    offer = await world.chat.wait_for(lambda shown: "learned from it already" in shown.text)
    await world.chat.press("ada", offer.reply.buttons[0].action)
    await world.cycle.settled()
    assert await held(world) == ["v2", "withdrawn"]
    assert trained(world.engine.seen.ran[-1]) == [[1]]


async def test_nobody_takes_somebody_elses_lesson_back(world):
    await teach(world, WISHES[0])
    await teach(world, WISHES[1], account="bob")
    job_id = (await world.store.run(versions.current, 2)).job_id
    with pytest.raises(NotFound):
        await world.cycle.steering.revoke(1, job_id, "playground:admin")
    assert "somebody else" in (await world.chat.press("ada", "unlearn:yes:1:2")).text
    assert await held(world) == ["v1", "v1"]


@pytest.mark.parametrize("argument", ["2", "9" * 30, "x", "-1"])
async def test_a_lesson_that_does_not_stand_is_named_in_one_line(world, argument):
    await teach(world, WISHES[0])
    told = (await world.chat.command("ada", "unlearn", argument)).text
    assert "\n" not in told and ("/unlearn" in told or "not one of mine" in told)
    assert await held(world) == ["v1"]


async def test_an_admin_takes_a_lesson_back_and_it_is_written_down(world):
    await teach(world, *WISHES[:2])
    job_id = (await world.store.run(versions.version_named, 1, 1)).job_id
    revoked = await world.cycle.steering.revoke(1, job_id, "playground:admin")
    assert (revoked.is_rebuilding, revoked.version_name) == (True, "p1.v2")
    await world.cycle.settled()
    assert await held(world) == ["withdrawn", "v3"]
    written = await world.store.run(rows, "SELECT did FROM audit")
    assert [row["did"] for row in written] == [f"took lesson {job_id[:8]} of p1 back"]


async def test_a_lesson_that_a_crash_cut_after_its_version_was_written_begins_again_without_what_was_taken_back(
    tmp_path, settings, store
):
    """The folder lies there, no row names it, and it was made by a teacher that had read the lesson."""
    async with running_world(tmp_path, settings, store) as world:
        await teach(world, *WISHES[:2])
        trainer = Held(world)
        await wish_for(world, WISHES[2])
        await trainer.runs.wait()
        cut = world.engine.seen.ran[-1]
    world.engine.faults.before_step = DryRunEngine(toy_logprobs).faults.before_step
    await world.engine.run(cut)
    await store.run(revocations.ask, 1, (1,), world.cycle.clock())
    async with running_world(tmp_path, settings, store) as world:
        await world.cycle.settled()
        assert await held(world) == ["withdrawn", "v4", "v5"]
        await until(lambda: folders(world) == {"v4", "v5"})
        await assert_learned_once(world)


async def test_a_rebuild_is_nobodys_lesson_of_the_day(world):
    await teach(world, *WISHES[:3])
    await unlearn(world, 1)
    await world.cycle.settled()
    assert "; 3 lessons in" in (await world.chat.command("ada", "usage")).text
