"""Forgetting when it is hard: older copies in the worker, loads and jobs that run, servers that cannot forget."""

import asyncio

import pytest

from claasbot.domain.completion import CompletionRequest
from claasbot.domain.conversation import ChatAddress, Commanded, Message, Pressed
from claasbot.errors import AdapterNotLoaded, ClaasbotError, NotFound, ServerDown, ServerRefused
from claasbot.inference.scripted import ScriptedServer
from claasbot.services.clock import utc_now
from claasbot.services.erasing import Erasing
from claasbot.services.serving import Serving
from claasbot.storage import audit, erasure, lessons, people, versions
from claasbot.storage.rows import change, one, rows

ADA = 1


class OddServer(ScriptedServer):
    """Loads when it is let, may die after an unload, and may be too busy to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = asyncio.Event()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.dies_after_unload = self.is_busy = False

    async def forget(self, name):
        return not self.is_busy and await super().forget(name)

    async def load(self, name, folder):
        self.loads.set()
        await self.may_load.wait()
        await super().load(name, folder)

    async def unload(self, name):
        await super().unload(name)
        self.faults.is_down = self.dies_after_unload


async def restart_by_hand() -> None:
    raise ServerRefused("restart the attached server")


def serving_of(world, server) -> Serving:
    return Serving(world.store, server, world.data, load_wait_s=5.0)


def erasing_of(world, server) -> Erasing:
    """As after a start of the bot: it remembers nothing, and the server is attached."""
    return Erasing(world.store, serving_of(world, server), world.engine, world.data, utc_now, restart_by_hand)


def weights_of_ada(world):
    return world.data / "adapters" / "p1"


async def state_of_erasure(world) -> str:
    return (await world.store.run(one, "SELECT state FROM erasure ORDER BY id DESC"))["state"]


async def loaded_into(server, world) -> list[str]:
    """Have a server of the test hold every version of ada; returns their names there."""
    held = await world.store.run(versions.of_person, ADA)
    for version in held:
        await server.load(version.server_name, world.data / version.folder)
    return [version.server_name for version in held]


async def test_versions_that_answer_no_more_leave_the_worker_too(world):
    await world.taught()
    await world.taught(said="In verse.")
    names = {version.server_name for version in await world.store.run(versions.of_person, ADA)}
    await world.chat.press("ada", "forget:yes")
    assert set(world.server.seen.forgotten) == names
    assert (await world.server.info()).base_model == "scripted"


async def test_an_undone_version_leaves_the_worker_too(world):
    await world.taught()
    await world.chat.command("ada", "undo")
    await world.chat.press("ada", "forget:yes")
    assert (await world.chat.say("ada", "Hm?")).version_name == "base"


async def test_a_load_in_flight_is_waited_for_and_its_copy_dropped(world):
    await world.taught()
    server = OddServer()
    serving = serving_of(world, server)
    version = await world.store.run(versions.current, ADA)
    server.may_load.clear()
    loading = asyncio.create_task(serving.ensure_loaded(version))
    await server.loads.wait()
    forgetting = asyncio.create_task(serving.forget([version.server_name]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not forgetting.done()
    server.may_load.set()
    assert await forgetting
    await asyncio.gather(loading, return_exceptions=True)
    assert server.seen.forgotten == [version.server_name]
    assert await server.loaded() == frozenset()
    assert await server.checksum(version.server_name) is None


async def test_a_version_of_somebody_who_leaves_is_never_loaded_again(world):
    await world.taught()
    version = await world.store.run(versions.current, ADA)
    await world.store.run(people.block, ADA)
    server = OddServer()
    with pytest.raises(NotFound, match="being deleted"):
        await serving_of(world, server).ensure_loaded(version)
    assert server.seen.loads == []
    assert (await serving_of(world, server).policy_of(ADA)).fell_back


async def test_no_answer_begins_under_a_forgotten_name(world):
    await world.taught()
    version = await world.store.run(versions.current, ADA)
    serving = serving_of(world, OddServer())
    await serving.forget([version.server_name])
    with pytest.raises(AdapterNotLoaded, match="being deleted"):
        async with serving.holding(version):
            pass


async def test_a_server_that_dies_between_unload_and_forget_is_asked_again(world):
    await world.taught()
    server = OddServer()
    names = await loaded_into(server, world)
    erasing = erasing_of(world, server)
    server.dies_after_unload = True
    with pytest.raises(ServerDown):
        await erasing.forget(ADA)
    assert weights_of_ada(world).exists()
    server.faults.is_down = server.dies_after_unload = False
    await erasing.resume()
    assert server.seen.forgotten == names
    assert not weights_of_ada(world).exists()
    assert (await server.info()).base_model == "scripted"


async def test_an_attached_server_that_is_only_busy_is_asked_again_and_needs_no_restart(world):
    await world.taught()
    server = OddServer()
    names = await loaded_into(server, world)
    erasing = erasing_of(world, server)
    server.is_busy = True
    with pytest.raises(ServerRefused):
        await erasing.forget(ADA)
    assert weights_of_ada(world).exists()
    server.is_busy = False
    await erasing.resume()
    assert server.seen.forgotten == names
    assert await state_of_erasure(world) == "done"


@pytest.mark.parametrize("undone", [False, True])
async def test_an_attached_server_that_cannot_forget_keeps_the_erasure_open_until_it_was_restarted(world, undone):
    """`undone`: nothing of the person is listed any more, and yet the worker has its copy."""
    await world.taught()
    if undone:
        await world.chat.command("ada", "undo")
    world.server.faults.cannot_forget = True
    erasing = erasing_of(world, world.server)
    with pytest.raises(ServerRefused, match="restart"):
        await erasing.forget(ADA)
    for again in (erasing, erasing, erasing_of(world, world.server)):
        await again.resume()
        assert weights_of_ada(world).exists()
        assert await state_of_erasure(world) == "asked"
    world.server.restart()
    await erasing.resume()
    assert await state_of_erasure(world) == "done"
    assert not weights_of_ada(world).exists()
    assert (await world.server.info()).base_model == "scripted"


async def test_an_undo_meanwhile_does_not_look_like_a_restart(world):
    await world.taught()
    world.server.faults.cannot_forget = True
    erasing = world.cycle.erasing
    attached = Erasing(world.store, world.cycle.serving, world.engine, world.data, utc_now, restart_by_hand)
    with pytest.raises(ServerRefused):
        await attached.forget(ADA)
    await world.cycle.promoting.undo(ADA)
    await attached.resume()
    assert await state_of_erasure(world) == "asked"
    await erasing.resume()  # this one may restart the server by itself
    assert await state_of_erasure(world) == "done"
    assert world.n_restarts == 1


async def test_what_was_promoted_after_the_erasure_was_asked_goes_too(world):
    await world.chat.command("ada", "optin")
    asked = await world.store.run(erasure.ask, ADA, "adapters/p1", utc_now())
    assert asked.server_names == asked.job_ids == []
    await world.store.run(change, "UPDATE person SET is_blocked = 0 WHERE id = 1")
    await world.taught()
    name = (await world.store.run(versions.current, ADA)).server_name
    job_id = world.engine.seen.ran[0].job_id
    await world.store.run(people.block, ADA)
    world.engine.seen.discarded.clear()
    await world.cycle.erasing.resume()
    assert world.server.seen.forgotten == [name]
    assert world.engine.seen.discarded == [job_id]
    assert (await world.server.info()).base_model == "scripted"


async def test_the_jobs_of_somebody_who_leaves_do_not_go_on(world):
    hold = asyncio.Event()
    world.engine.faults.before_step = hold.wait
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
    await world.chat.wait_mark(str(reply.completion_id), "queued")
    assert len(await world.store.run(lessons.open_jobs, utc_now())) == 1
    await world.store.run(people.block, ADA)
    assert await world.store.run(lessons.open_jobs, utc_now()) == []
    hold.set()


async def test_a_job_that_runs_makes_no_version_after_the_receipt(world):
    runs, hold = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        runs.set()
        await hold.wait()

    world.engine.faults.before_step = work
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
    await runs.wait()
    assert "Forgotten" in (await world.chat.press("ada", "forget:yes")).text
    hold.set()
    await world.cycle.settled()
    assert not (world.data / "adapters").exists() or list((world.data / "adapters").iterdir()) == []


async def test_an_erasure_that_is_done_is_not_done_again(world):
    await world.taught()
    assert await world.cycle.erasing.forget(ADA)
    world.server.seen.forgotten.clear()
    await world.cycle.erasing.resume()
    assert world.server.seen.forgotten == []
    with pytest.raises(ClaasbotError):
        await world.cycle.erasing.forget(ADA)


async def test_the_receipt_is_in_words_that_people_understand(world):
    await world.taught()
    assert (await world.cycle.erasing.forget(ADA)).counts == {
        "messages": 2,
        "answers": 2,
        "conversation": 1,
        "piece of feedback": 1,
        "lesson": 1,
        "adapter version": 1,
        "weight file": 1,
        "account": 1,
    }


async def test_the_receipt_leaves_out_what_there_was_none_of(world):
    await world.chat.say("ada", "What is rain?")
    receipt = await world.cycle.erasing.forget(ADA)
    assert receipt.counts == {"message": 1, "answer": 1, "conversation": 1, "account": 1}


async def test_the_receipt_counts_weights_and_not_the_optimizer(world):
    await world.taught()
    await world.taught(said="In verse.")
    assert (await world.cycle.erasing.forget(ADA)).counts["weight files"] == 2


async def test_a_forgotten_name_answers_nobody(world):
    await world.taught()
    name = (await world.store.run(versions.current, ADA)).server_name
    await world.chat.press("ada", "forget:yes")
    request = CompletionRequest(
        messages=(Message(role="user", content="Hm?"),), model=name, sampling=world.server.seen.requests[0].sampling
    )
    with pytest.raises(AdapterNotLoaded):
        async for _ in world.server.complete(request):
            pass
    assert await world.store.run(rows, "SELECT * FROM adapter_version") == []


async def test_an_erasure_that_is_stuck_holds_up_nobody_elses(world):
    for account in ("ada", "bob", "eve"):
        await world.chat.say(account, "What is rain?")
    await world.store.run(change, "UPDATE completion SET retry_of = 1 WHERE person_id = 2")  # ada's answer cannot go
    for person_id in (1, 3):
        await world.store.run(erasure.ask, person_id, f"adapters/p{person_id}", utc_now())
    await world.cycle.erasing.resume()
    assert [row["id"] for row in await world.store.run(rows, "SELECT id FROM person ORDER BY id")] == [1, 2]
    await world.store.run(change, "UPDATE completion SET retry_of = NULL")
    await world.cycle.erasing.resume()
    assert [row["id"] for row in await world.store.run(rows, "SELECT id FROM person")] == [2]


async def test_what_somebody_wanted_the_bot_to_be_in_private_goes(world):
    await world.chat.command("ada", "persona", "I am Ada Lovelace; call me Countess")
    await world.chat.command("bob", "persona", "a patient teacher")
    await world.chat.press("ada", "forget:yes")
    await world.cycle.settled()
    kept = await world.store.run(rows, "SELECT persona FROM chat WHERE persona != ''")
    assert kept == [{"persona": "a patient teacher"}]


async def test_the_persona_of_a_group_outlives_whoever_set_it(world):
    team = ChatAddress(platform="console", bot_account="console", chat="team")
    await world.chat.post(
        Commanded(address=team, account="ada", update_key="g", command="persona", argument="a poet", is_group=True)
    )
    await world.cycle.settled()
    await world.chat.press("ada", "forget:yes")
    assert {"persona": "a poet"} in await world.store.run(rows, "SELECT persona FROM chat")


async def test_the_record_of_what_admins_did_loses_the_name(world):
    await world.chat.say("ada", "What is rain?")
    await world.store.run(audit.add, "console:ada", "let in", utc_now(), whom="telegram:9")
    await world.store.run(audit.add, "telegram:8", "let in", utc_now(), whom="console:ada")
    assert (await world.store.run(audit.latest))[0]["did"] == "let in console:ada"
    await world.chat.press("ada", "forget:yes")
    found = await world.store.run(audit.latest)
    assert [(row["who"], row["did"]) for row in found] == [
        ("telegram:8", "let in p1, forgotten"),
        ("p1, forgotten", "let in telegram:9"),
    ]


async def test_every_table_is_somebodys_or_says_why_it_is_nobodys(world):
    found = await world.store.run(
        rows, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
    )
    owned = set(erasure.owned_tables())
    assert {row["name"] for row in found} - {"_sqlite_migrations"} == owned | erasure.NOBODYS.keys()
    assert not owned & erasure.NOBODYS.keys()


async def test_the_button_of_a_forget_card_is_for_whoever_asked(world):
    team = ChatAddress(platform="console", bot_account="console", chat="team")
    await world.chat.say("bob", "What is rain?")
    await world.chat.post(Commanded(address=team, account="ada", update_key="c", command="forget", is_group=True))
    card = await world.chat.wait_for(lambda shown: "cannot be undone" in shown.text)
    assert [button.action for button in card.reply.buttons] == ["forget:yes:2", "forget:no:2"]
    for key, action in (("p1", "forget:yes:2"), ("p2", "forget:yes")):  # the other one is of an older card
        since = len(world.chat.shown)
        await world.chat.post(Pressed(address=team, account="bob", update_key=key, action=action, is_group=True))
        told = await world.chat.wait_for(lambda shown: shown.address == team, since=since)
        assert "theirs to decide" in told.text
    assert len(await world.store.run(rows, "SELECT * FROM person")) == 2
    await world.chat.post(Pressed(address=team, account="ada", update_key="p3", action="forget:yes:2", is_group=True))
    await world.chat.wait_for(lambda shown: "Forgotten" in shown.text)
