"""How talk goes on a chat platform: merged, branched, edited, deleted, and set per chat."""

import asyncio
import json
from dataclasses import asdict, replace

import pytest

from claasbot.chat.console import ConsoleChat
from claasbot.domain.conversation import Attachment, ChatAddress, Commanded, Deleted, Edited, Left, Moved, Said
from claasbot.errors import ChatError, ChatGone, ServerDown
from claasbot.settings import Settings
from claasbot.storage.rows import one, rows
from tests.services.world import World, running_world


@pytest.fixture
def settings() -> Settings:
    return Settings(learning={"debounce_s": 0.0}, access={"mode": "open"})


@pytest.fixture
async def world(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store, "chatter") as world:
        yield world


def said(world: World, text: str, key: str, **facts) -> Said:
    return Said(
        address=world.chat.chat_of("ada"), account="ada", update_key=f"u{key}", message_key=key, text=text, **facts
    )


async def replies(world: World, n: int, account: str = "ada"):
    await world.chat.wait_for(lambda _: len(world.chat.said_to(account, "reply")) >= n)
    await world.cycle.settled()
    return world.chat.said_to(account, "reply")


def asked(world: World) -> list[str]:
    """What the model read last, message by message."""
    return [message.content for message in world.server.seen.requests[-1].messages]


class Held:
    """An answer that waits until it is let go."""

    def __init__(self, world: World) -> None:
        self.gate = asyncio.Event()
        world.server.faults.before_token = self.gate.wait


async def test_messages_said_while_an_answer_is_written_get_one_answer(world):
    held = Held(world)
    await world.chat.post(said(world, "What is rain?", "1"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    for number, text in enumerate(("And snow?", "And hail?"), 2):
        await world.chat.post(said(world, text, str(number)))
    held.gate.set()
    found = await replies(world, 2)
    assert len(found) == 2
    assert asked(world)[-1] == "And snow?\n\nAnd hail?"
    assert await world.store.run(one, "SELECT 1 FROM inbox WHERE handled_at IS NULL") is None


async def test_a_text_that_the_platform_cut_is_whole_again(world):
    await world.chat.post(said(world, "first half, ", "1", may_continue=True))
    await world.chat.post(said(world, "second half", "2"))
    await replies(world, 1)
    assert asked(world) == ["first half, second half"]


async def test_people_in_one_chat_are_not_merged(world):
    held = Held(world)
    await world.chat.post(said(world, "What is rain?", "1"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    await world.chat.post(said(world, "And snow?", "2"))
    await world.chat.post(replace(said(world, "And hail?", "3"), account="bob"))
    held.gate.set()
    await replies(world, 3)
    assert asked(world) == ["And hail?"]


async def test_a_reply_to_an_older_answer_reads_up_to_there(world):
    first = await world.chat.say("ada", "What is rain?")
    await world.chat.say("ada", "And snow?")
    await world.chat.post(said(world, "Why is it wet?", "9", reply_to=str(first.completion_id)))
    await replies(world, 3)
    assert asked(world) == ["What is rain?", first.text, "Why is it wet?"]
    await world.chat.say("ada", "Really?")
    assert asked(world)[:3] == ["What is rain?", first.text, "Why is it wet?"]


async def test_a_reply_to_the_last_answer_goes_on(world):
    first = await world.chat.say("ada", "What is rain?")
    await world.chat.post(said(world, "Why?", "9", reply_to=str(first.completion_id)))
    await replies(world, 2)
    assert asked(world) == ["What is rain?", first.text, "Why?"]
    assert (await world.store.run(one, "SELECT count(*) AS n FROM conversation"))["n"] == 1


async def test_a_quote_is_read_with_the_reply_and_a_strangers_is_not(world):
    first = await world.chat.say("ada", "What is rain?")
    await world.chat.post(said(world, "Why?", "9", reply_to=str(first.completion_id), quote="heard"))
    await replies(world, 2)
    assert asked(world)[-1] == "> heard\n\nWhy?"
    await world.chat.post(said(world, "And this?", "10", reply_to="somebody else's", quote="a secret"))
    await replies(world, 3)
    assert asked(world)[-1] == "And this?"


async def test_an_edit_of_the_last_message_is_answered_again(world):
    await world.chat.post(said(world, "What is rian?", "1"))
    await replies(world, 1)
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Edited(address=address, account="ada", update_key="e1", message_key="1", text="What is rain?")
    )
    found = await replies(world, 2)
    assert asked(world) == ["What is rain?"]
    assert found[-1].completion_id != found[0].completion_id
    await world.chat.say("ada", "And snow?")
    assert asked(world) == ["What is rain?", found[-1].text, "And snow?"]


@pytest.mark.parametrize("text", ["What is rain?", "Something else"])
async def test_an_edit_that_changes_nothing_or_comes_too_late_is_not_answered(world, text):
    await world.chat.post(said(world, "What is rain?", "1"))
    await replies(world, 1)
    if text == "Something else":
        await world.chat.say("ada", "And snow?")
    n_asked = len(world.server.seen.requests)
    address = world.chat.chat_of("ada")
    await world.chat.post(Edited(address=address, account="ada", update_key="e1", message_key="1", text=text))
    await world.cycle.settled()
    assert len(world.server.seen.requests) == n_asked


async def test_somebody_elses_message_cannot_be_edited(world):
    await world.chat.post(said(world, "What is rain?", "1"))
    await replies(world, 1)
    address = world.chat.chat_of("ada")
    await world.chat.post(Edited(address=address, account="bob", update_key="e1", message_key="1", text="Ha!"))
    await world.cycle.settled()
    assert asked(world) == ["What is rain?"]


async def test_a_deleted_message_leaves_the_conversation_and_teaches_nothing(world):
    await world.chat.command("ada", "optin")
    await world.chat.post(said(world, "What is rain?", "1"))
    [answer] = await replies(world, 1)
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "feedback", "Shorter.", str(answer.completion_id))
    await world.chat.post(Deleted(address=world.chat.chat_of("ada"), account="", update_key="d1", message_key="1"))
    await world.cycle.settled()
    await world.cycle.steering.set_paused(False, "console:host")
    await world.cycle.settled()
    assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "withdrawn"
    assert world.engine.seen.ran == []
    await world.chat.say("ada", "And snow?")
    assert asked(world) == ["And snow?"]
    people = await world.store.run(rows, "SELECT display_name FROM person")
    assert len(people) == 1  # the deletion named nobody, and made nobody


async def test_a_text_file_is_read_with_the_message(world):
    world.chat.files["f1"] = "a,b\n1,2"
    table = Attachment(name="table.csv", reference="f1", n_bytes=7)
    await world.chat.post(said(world, "Sum it up.", "1", attachments=(table,)))
    await replies(world, 1)
    assert asked(world) == ["Sum it up.\n\ntable.csv:\n```\na,b\n1,2\n```"]


async def test_a_file_that_cannot_be_read_is_named(world):
    await world.chat.post(
        said(world, "Sum it up.", "1", attachments=(Attachment(name="gone.txt", reference="f2", n_bytes=7),))
    )
    notice = await world.chat.wait_for(lambda shown: shown.kind == "notice")
    assert "gone.txt" in notice.text


async def test_ask_is_a_message(world):
    reply = await world.chat.command("ada", "ask", "What is rain?")
    assert reply is not None
    assert asked(world) == ["What is rain?"]


@pytest.mark.parametrize(("minutes", "n_read"), [(0, 1), (10, 3)])
async def test_a_group_that_was_quiet_begins_anew(tmp_path, store, minutes, n_read):
    settings = Settings(access={"mode": "open"}, chat={"group_idle_minutes": minutes})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        for number, text in enumerate(("What is rain?", "And snow?"), 1):
            await world.chat.post(said(world, text, str(number), is_group=True))
            await replies(world, number)
        assert len(asked(world)) == n_read


async def test_what_was_learned_in_private_answers_in_a_group_only_where_the_person_agreed(world):
    await world.taught("ada")
    group = replace(world.chat.chat_of("ada"), chat="group")
    await world.chat.post(replace(said(world, "What is rain?", "1", is_group=True), address=group))
    in_group = await world.chat.wait_for(lambda shown: shown.kind == "reply" and shown.address == group)
    assert in_group.reply.version_name == "base"
    await world.chat.post(
        Commanded(address=group, account="ada", update_key="c", command="optin", is_group=True, own_key="2")
    )
    await world.cycle.settled()
    since = len(world.chat.shown)
    await world.chat.post(replace(said(world, "And now?", "3", is_group=True), address=group))
    now = await world.chat.wait_for(lambda shown: shown.kind == "reply" and shown.address == group, since=since)
    assert now.reply.version_name == "p1.v1"


async def test_the_topics_of_a_group_share_its_consent(world):
    topic, other = (replace(world.chat.chat_of("ada"), chat=f"group/{n}") for n in (1, 2))
    for number, address in enumerate((topic, other)):
        await world.chat.post(replace(said(world, "Hello there", str(number), is_group=True), address=address))
    await world.chat.wait_for(lambda shown: shown.kind == "reply" and shown.address == other)
    await world.cycle.settled()
    cards = [shown for shown in world.chat.shown if shown.reply is not None and "I am an AI" in shown.text]
    assert len(cards) == 1


async def test_a_persona_holds_in_its_chat_alone(world):
    await world.chat.command("ada", "persona", "You are a pirate.")
    await world.chat.say("ada", "What is rain?")
    assert asked(world)[0] == "You are a pirate."
    await world.chat.say("bob", "What is rain?")
    assert asked(world) == ["What is rain?"]
    await world.chat.command("ada", "persona", "off")
    await world.chat.say("ada", "And snow?")
    assert asked(world)[0] == "What is rain?"


async def test_without_streaming_an_answer_comes_whole(world):
    card = await world.chat.command("ada", "settings")
    off = next(button for button in card.buttons if button.label == "Streaming off")
    assert "come whole" in (await world.chat.press("ada", off.action)).text
    await world.chat.say("ada", "What is rain?")
    assert not [shown for shown in world.chat.shown if shown.kind == "delta"]


async def test_in_a_group_only_admins_change_its_settings(world):
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Commanded(address=address, account="ada", update_key="c", command="persona", argument="Me.", is_group=True)
    )
    notice = await world.chat.wait_for(lambda shown: shown.kind == "notice")
    assert "admin" in notice.text


async def test_a_group_that_moved_goes_on_under_its_new_name(world):
    old = world.chat.chat_of("ada")
    first = await world.chat.say("ada", "What is rain?")
    await world.chat.post(Moved(address=old, account="", update_key="m", to_chat="new"))
    await world.cycle.settled()
    new = replace(old, chat="new")
    await world.chat.post(replace(said(world, "And snow?", "2"), address=new))
    await world.chat.wait_for(lambda shown: shown.kind == "reply" and shown.address == new)
    assert asked(world) == ["What is rain?", first.text, "And snow?"]


async def test_a_person_who_left_is_told_nothing_more(world):
    await world.chat.command("ada", "optin")
    answer = await world.chat.say("ada", "What is rain?")
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "feedback", "Shorter.", str(answer.completion_id))
    await world.cycle.settled()
    await world.store.run(
        lambda db: db.execute("UPDATE outbox SET told_at = NULL, data_json = '{}' WHERE kind = 'noted'")
    )
    since = len(world.chat.shown)
    await world.chat.post(Left(address=world.chat.chat_of("ada"), account="ada", update_key="l"))
    await world.cycle.settled()
    assert (await world.store.run(one, "SELECT gone_at FROM chat"))["gone_at"]
    assert [shown.kind for shown in world.chat.shown[since:] if shown.kind == "notice"] == []


async def test_no_more_answers_than_the_host_gives(tmp_path, store):
    settings = Settings(access={"mode": "open"}, chat={"answers_per_day": 2})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        for text in ("one", "two"):
            await world.chat.say("ada", text)
        assert "2 answers" in (await world.chat.say("ada", "three")).text
        assert len(world.server.seen.requests) == 2


async def test_a_long_conversation_says_once_that_its_oldest_part_is_left_out(world):
    for _ in range(8):
        await world.chat.say("ada", "x" * 1500)
    await world.cycle.settled()
    told = [notice for notice in world.chat.said_to("ada", "notice") if "oldest part" in notice.text]
    assert len(told) == 1


async def test_somebody_else_cannot_stop_an_answer(world):
    held = Held(world)
    await world.chat.post(said(world, "What is rain?", "1"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    address = world.chat.chat_of("ada")
    await world.chat.post(Commanded(address=address, account="bob", update_key="s", command="stop"))
    held.gate.set()
    [answer] = await replies(world, 1)
    assert answer.data["finish_reason"] == "stop"


async def put(store, *found: tuple[str, str, str]) -> None:
    def unit(db) -> None:
        for key, chat, text in found:
            db.execute(
                "INSERT INTO inbox (platform, bot_account, chat, account, update_key, event_json, received_at)"
                " VALUES ('chatter', 'console', ?, 'ada', ?, ?, '2026-11-20T12:00:00.000000+00:00')",
                [chat, key, text],
            )

    await store.run(unit)


async def test_a_message_that_waited_while_claasbot_was_renewed_is_answered(tmp_path, store, settings):
    chat = ChatAddress(platform="chatter", bot_account="console", chat="ada")
    old = {"kind": "Said", "address": asdict(chat), "account": "ada", "display_name": "", "update_key": "u", "at": None}
    await put(store, ("u", "ada", json.dumps({**old, "text": "What is rain?", "message_key": "1", "reply_to": None})))
    async with running_world(tmp_path, settings, store, "chatter") as world:
        await replies(world, 1)
        assert asked(world) == ["What is rain?"]


async def test_after_a_crash_the_message_behind_the_one_that_was_begun_is_answered_too(tmp_path, store, settings):
    async with running_world(tmp_path, settings, store, "chatter") as world:
        Held(world)
        await world.chat.post(said(world, "What is rain?", "1"))
        await world.chat.wait_for(lambda shown: shown.kind == "started")
        await world.chat.post(said(world, "And snow?", "2"))
    async with running_world(tmp_path, settings, store, "chatter") as world:
        await replies(world, 2)
        texts = [row["text"] for row in await store.run(rows, "SELECT text FROM turn WHERE role = 'user' ORDER BY id")]
        assert texts == ["What is rain?", "And snow?"]


async def test_a_deleted_message_that_was_feedback_teaches_nothing(world):
    await world.chat.command("ada", "optin")
    await world.chat.say("ada", "What is rain?")
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.post(said(world, "Too long.", "m2"))
    await world.chat.wait_mark("m2", "noted")
    await world.chat.post(Deleted(address=world.chat.chat_of("ada"), account="", update_key="d", message_key="m2"))
    await world.chat.wait_for(lambda shown: shown.kind == "mark" and shown.mark is None)
    assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "withdrawn"


async def test_answers_that_read_a_deleted_message_teach_nothing(world):
    await world.chat.command("ada", "optin")
    await world.chat.post(said(world, "What is rain?", "m1"))
    await replies(world, 1)
    later = await world.chat.say("ada", "And snow?")
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "feedback", "Shorter.", str(later.completion_id))
    await world.chat.post(Deleted(address=world.chat.chat_of("ada"), account="", update_key="d", message_key="m1"))
    await world.cycle.settled()
    assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "withdrawn"


async def test_what_an_answer_read_counts_also_after_it_was_deleted(tmp_path, store):
    settings = Settings(learning={"debounce_s": 0.0}, access={"mode": "open"}, discord={"learning": "interactions"})
    async with running_world(tmp_path, settings, store, "discord") as world:
        await world.chat.command("ada", "optin")
        await world.chat.post(said(world, "A secret of the channel", "m1"))
        await replies(world, 1)
        address = world.chat.chat_of("ada")
        ask = Commanded(
            address=address, account="ada", update_key="a", command="ask", argument="And snow?", is_interaction=True
        )
        await world.chat.post(ask)
        await replies(world, 2)
        await world.chat.post(Deleted(address=address, account="", update_key="d", message_key="m1"))
        await world.cycle.settled()
        feedback = replace(ask, update_key="f", command="feedback", argument="Shorter.")
        await world.chat.post(feedback)
        await world.cycle.settled()
        assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "rejected"


async def merged(world: World) -> None:
    """Two messages that got one answer."""
    held = Held(world)
    await world.chat.post(said(world, "Hello there.", "m0"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    for key, text in (("m1", "My name is Ada."), ("m2", "Waht is snow?")):
        await world.chat.post(said(world, text, key))
    held.gate.set()
    await replies(world, 2)


async def test_an_edit_of_one_of_several_messages_leaves_the_others(world):
    await merged(world)
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Edited(address=address, account="ada", update_key="e", message_key="m2", text="What is snow?")
    )
    await replies(world, 3)
    assert asked(world)[-1] == "My name is Ada.\n\nWhat is snow?"


async def test_a_deletion_of_one_of_several_messages_leaves_the_others(world):
    await merged(world)
    await world.chat.post(Deleted(address=world.chat.chat_of("ada"), account="", update_key="d", message_key="m1"))
    await world.cycle.settled()
    await world.chat.say("ada", "And hail?")
    assert "Waht is snow?" in asked(world)
    assert not any("Ada" in text for text in asked(world) if "heard" not in text)


async def test_an_answer_that_cannot_be_begun_is_opened_once(world):
    tries, enough = [], asyncio.Event()

    async def down() -> None:
        tries.append("try")
        if len(tries) == 4:
            enough.set()
        raise ServerDown("the engine is dead")

    world.server.faults.before_token = down
    await world.chat.post(said(world, "What is rain?", "1"))
    await asyncio.wait_for(enough.wait(), 20)
    assert [shown.kind for shown in world.chat.shown].count("started") == 1
    assert not [shown for shown in world.chat.shown if "broke off" in shown.text]


async def test_another_answer_counts_and_is_given_to_the_last_one_only(tmp_path, store):
    settings = Settings(access={"mode": "open"}, chat={"answers_per_day": 3})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        first = await world.chat.say("ada", "What is rain?")
        second = await world.chat.say("ada", "And snow?")
        older = await world.chat.press("ada", "retry", str(first.completion_id))
        assert "Only the last answer" in older.text
        await world.chat.press("ada", "retry", str(second.completion_id))
        assert "3 answers" in (await world.chat.press("ada", "retry")).text


async def test_a_card_that_could_not_be_shown_is_shown_after_the_next_answer(tmp_path, store, settings):
    class Unlucky(ConsoleChat):
        n_failures = 1

        async def send(self, address, reply, reply_to=None):
            if "I am an AI" in reply.text and self.n_failures:
                self.n_failures -= 1
                raise ChatError("the platform hiccups; try again")
            return await super().send(address, reply, reply_to)

    chat = Unlucky("chatter")
    async with running_world(tmp_path, settings, store, client=chat):
        await chat.say("ada", "What is rain?")
        await chat.say("ada", "And snow?")
        await chat.wait_for(lambda shown: "I am an AI" in shown.text)
        assert not [shown for shown in chat.shown if "went wrong" in shown.text]


def deletion(world: World, key: str) -> Deleted:
    return Deleted(address=world.chat.chat_of("ada"), account="", update_key=f"d{key}", message_key=key)


async def states(world: World) -> list[str]:
    return [row["state"] for row in await world.store.run(rows, "SELECT state FROM experience ORDER BY id")]


async def test_feedback_on_an_answer_that_had_read_a_deleted_message_teaches_nothing(world):
    await world.chat.command("ada", "optin")
    await world.chat.post(said(world, "My secret is X.", "m1"))
    await replies(world, 1)
    later = await world.chat.say("ada", "And snow?")
    await world.chat.post(deletion(world, "m1"))
    await world.cycle.settled()
    noted = await world.chat.command("ada", "feedback", "Shorter.", str(later.completion_id))
    assert "deleted" in noted.text
    fresh = await world.chat.say("ada", "And hail?")
    noted = await world.chat.command("ada", "feedback", "Shorter.", str(fresh.completion_id))
    assert noted.data["will_teach"]  # it has not read the deleted one


async def test_what_was_edited_and_then_deleted_teaches_nothing_in_either_form(world):
    await world.chat.command("ada", "optin")
    await world.chat.post(said(world, "My secret is X. What is rain?", "m1"))
    [first] = await replies(world, 1)
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "feedback", "Shorter.", str(first.completion_id))
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Edited(address=address, account="ada", update_key="e", message_key="m1", text="What is rain?")
    )
    await replies(world, 2)
    await world.chat.post(deletion(world, "m1"))
    await world.cycle.settled()
    assert await states(world) == ["withdrawn"]


async def test_a_branch_from_a_deleted_message_does_not_read_it(world):
    await world.chat.post(said(world, "My secret is X.", "m1"))
    await replies(world, 1)
    await world.chat.post(said(world, "What about that?", "m2", reply_to="m1"))
    await replies(world, 2)
    await world.chat.post(deletion(world, "m1"))
    await world.cycle.settled()
    await world.chat.say("ada", "And snow?")
    assert not any("X." in text for text in asked(world) if "heard" not in text)


async def test_a_deleted_file_leaves_with_its_message(world):
    held = Held(world)
    world.chat.files["f1"] = "a secret"
    await world.chat.post(said(world, "Hello there.", "m0"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    secret = Attachment(name="secret.txt", reference="f1", n_bytes=8)
    await world.chat.post(said(world, "", "m1", attachments=(secret,)))
    await world.chat.post(said(world, "What is rain?", "m2"))
    held.gate.set()
    await replies(world, 2)
    assert "a secret" in asked(world)[-1]
    await world.chat.post(deletion(world, "m1"))
    await world.cycle.settled()
    await world.chat.say("ada", "And snow?")
    assert not any("a secret" in text for text in asked(world) if "heard" not in text)


async def test_a_chat_that_cannot_be_reached_at_the_worst_moment_ends_nothing(tmp_path, store, settings):
    class Gone(ConsoleChat):
        """Nothing can be shown there any more."""

        async def open_reply(self, address, reply_to):
            writer = await super().open_reply(address, reply_to)

            async def finish(reply):
                raise ChatGone("the chat is no more")

            writer.finish = finish
            return writer

    chat = Gone("chatter")
    async with running_world(tmp_path, settings, store, client=chat) as world:
        down = asyncio.Event()

        async def die() -> None:
            down.set()
            raise ServerDown("the engine is dead")

        world.server.faults.before_token = die
        address = chat.chat_of("ada")
        await chat.post(Said(address=address, account="ada", update_key="1", message_key="1", text="What is rain?"))
        await asyncio.wait_for(down.wait(), 10)
        await store.run(lambda db: db.execute("UPDATE person SET is_blocked = 1"))
        async with asyncio.timeout(20):
            while await store.run(one, "SELECT 1 FROM inbox WHERE handled_at IS NULL"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await store.run(lambda db: db.execute("UPDATE person SET is_blocked = 0"))
        assert (await chat.command("ada", "status")).text  # the bot goes on


async def test_stop_is_obeyed_however_it_is_written(world):
    held = Held(world)
    await world.chat.post(said(world, "What is rain?", "1"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    address = world.chat.chat_of("ada")
    await world.chat.post(Commanded(address=address, account="ada", update_key="s", command="/Stop"))
    held.gate.set()
    [answer] = await replies(world, 1)
    assert answer.data["finish_reason"] == "abort"
