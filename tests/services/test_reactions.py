"""Feedback in its natural forms: reactions, replies, next messages, buttons, comparison; and what is seen of it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from claasbot.domain.conversation import Commanded, Reacted, Reply, Said
from claasbot.settings import Settings
from claasbot.storage import completions, feedback_events, versions
from claasbot.storage.rows import one, rows
from tests.services.world import World, running_world


@pytest.fixture
def settings() -> Settings:
    return Settings(learning={"debounce_s": 0.0}, access={"mode": "open"})


@pytest.fixture
async def world(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store, "chatter") as world:
        yield world


WHY = "What was wrong? Pick a reason or say it."


def marks(world: World, key: str) -> list[str | None]:
    return [shown.mark for shown in world.chat.shown if shown.kind == "mark" and shown.message_key == key]


async def answered(world: World, account: str = "ada") -> Reply:
    await world.chat.command(account, "optin")
    return await world.chat.say(account, "What is rain?")


async def feedback(world: World) -> list[tuple[str, str, bool]]:
    found = await world.store.run(rows, "SELECT kind, text, withdrawn_at FROM feedback_event ORDER BY id")
    return [(row["kind"], row["text"], row["withdrawn_at"] is not None) for row in found]


@pytest.mark.parametrize(("reaction", "kind"), [("❤\ufe0f", "thumbs_up"), ("🔥", "thumbs_up"), ("💩", "thumbs_down")])
async def test_many_reactions_are_feedback(world, reaction, kind):
    answer = await answered(world)
    await world.chat.react("ada", str(answer.completion_id), reaction)
    await world.cycle.settled()
    assert [row[0] for row in await feedback(world)] == [kind]


@pytest.mark.parametrize(("reaction", "key"), [("🤔", "1"), ("👍", "a message of somebody else")])
async def test_other_reactions_and_other_messages_pass_in_silence(world, reaction, key):
    await answered(world)
    since = len(world.chat.shown)
    await world.chat.react("ada", key, reaction)
    await world.cycle.settled()
    assert await feedback(world) == []
    assert world.chat.shown[since:] == []


async def test_the_host_chooses_what_reactions_mean(tmp_path, store):
    settings = Settings(access={"mode": "open"}, chat={"good_reactions": ["🤔"], "bad_reactions": []})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        answer = await answered(world)
        for reaction in ("🤔", "👎"):
            await world.chat.react("ada", str(answer.completion_id), reaction)
        await world.cycle.settled()
        assert [row[0] for row in await feedback(world)] == ["thumbs_up"]


async def test_other_peoples_reactions_teach_nobody(world):
    answer = await answered(world)
    await world.chat.command("bob", "optin")
    since = len(world.chat.shown)
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Reacted(address=address, account="bob", update_key="r", message_key=str(answer.completion_id), reaction="👎")
    )
    await world.cycle.settled()
    assert await feedback(world) == []
    assert world.chat.shown[since:] == []


async def test_a_reaction_that_is_found_again_is_one_reaction(world):
    answer = await answered(world)
    for _ in range(2):
        await world.chat.react("ada", str(answer.completion_id), "👎")
        await world.cycle.settled()
    assert len(await feedback(world)) == 1
    assert [notice.text for notice in world.chat.said_to("ada", "notice")].count(WHY) == 1


async def test_forwarded_words_are_answered_and_teach_nothing(world):
    await world.chat.command("ada", "optin")
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Said(address=address, account="ada", update_key="f", message_key="f", text="What is rain?", is_forwarded=True)
    )
    await world.cycle.settled()
    noted = await world.chat.command("ada", "feedback", "Shorter.")
    assert "forwarded" in noted.text
    await world.chat.command("ada", "reset")
    answer = await world.chat.say("ada", "What is rain?")
    assert (await world.chat.command("ada", "feedback", "Shorter.", str(answer.completion_id))).data["will_teach"]


async def test_a_reaction_before_the_answer_is_finished_is_kept(world):
    gate = asyncio.Event()
    world.server.faults.before_token = gate.wait
    asking = asyncio.create_task(world.chat.say("ada", "What is rain?"))
    await world.chat.wait_for(lambda shown: shown.kind == "started")
    await world.chat.react("ada", "1", "👍")
    gate.set()
    await asking
    await world.cycle.settled()
    assert [row[0] for row in await feedback(world)] == ["thumbs_up"]


async def test_a_reaction_on_any_part_of_a_split_answer_counts(world):
    answer = await answered(world)
    await world.store.run(completions.set_message_keys, answer.completion_id, ("part-1", "part-2"))
    await world.chat.react("ada", "part-1", "👍")
    await world.cycle.settled()
    assert [row[0] for row in await feedback(world)] == ["thumbs_up"]


async def test_a_removed_thumbs_down_takes_its_reason_and_its_mark_along(world):
    answer = await answered(world)
    key = str(answer.completion_id)
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.react("ada", key, "👎")
    why = await world.chat.wait_for(lambda shown: "What was wrong" in shown.text)
    await world.chat.press("ada", why.reply.buttons[0].action)
    await world.chat.wait_mark(key, "noted")
    await world.chat.react("ada", key, "👎", removed=True)
    await world.chat.wait_for(lambda shown: shown.kind == "mark" and shown.mark is None)
    assert [row[2] for row in await feedback(world)] == [True, True]
    assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "withdrawn"


async def test_a_reaction_removed_after_the_lesson_offers_to_unlearn_it(world):
    answer = await answered(world)
    key = str(answer.completion_id)
    await world.chat.react("ada", key, "👎")
    why = await world.chat.wait_for(lambda shown: "What was wrong" in shown.text)
    await world.chat.press("ada", why.reply.buttons[0].action)
    await world.chat.wait_mark(key, "learned")
    await world.chat.react("ada", key, "👎", removed=True)
    offer = await world.chat.wait_for(lambda shown: "unlearn it" in shown.text)
    assert "base model" in (await world.chat.press("ada", offer.reply.buttons[0].action)).text


async def test_the_next_message_may_be_a_remark_and_is_answered_all_the_same(world):
    await answered(world)
    address = world.chat.chat_of("ada")
    await world.chat.post(Said(address=address, account="ada", update_key="u2", message_key="m2", text="Too long."))
    await world.chat.wait_mark("m2", "learned")
    assert await feedback(world) == [("text", "Too long.", False)]
    assert world.chat.said_to("ada", "reply")[-1].text.endswith("Too long.")


async def test_a_reply_that_is_a_remark_is_about_the_message_it_replies_to(world):
    first = await answered(world)
    await world.chat.say("ada", "And snow?")
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Said(
            address=address, account="ada", update_key="u3", message_key="m3", text="That's wrong.",
            reply_to=str(first.completion_id),
        )
    )  # fmt: skip
    await world.chat.wait_mark("m3", "noted")
    found = await world.store.run(one, "SELECT completion_id FROM feedback_event")
    assert found["completion_id"] == first.completion_id


async def test_where_only_words_teach_a_remark_is_just_talk(world):
    await answered(world)
    card = await world.chat.command("ada", "settings")
    await world.chat.press("ada", card.buttons[-1].action)
    await world.chat.say("ada", "Too long.")
    await world.cycle.settled()
    assert await feedback(world) == []


async def test_a_command_as_a_reply_says_which_version_answered(world):
    await world.taught("ada")
    told = await world.chat.command("ada", "status", "", "1")
    assert "came from base" in told.text
    assert "p1.v1 answers you" in told.text


async def test_thumbs_under_an_answer_are_feedback(world):
    answer = await answered(world)
    up, down, again = answer.buttons
    assert "nothing to change" in (await world.chat.press("ada", up.action)).text
    assert "What was wrong" in (await world.chat.press("ada", down.action)).text
    retried = await world.chat.press("ada", again.action)
    assert retried.completion_id != answer.completion_id


async def test_a_lesson_is_told_once_and_marks_every_message(world):
    answer = await answered(world)
    await world.cycle.steering.set_paused(True, "console:host")
    for number, text in enumerate(("Shorter.", "In verse.")):
        await world.chat.post(
            Commanded(
                address=world.chat.chat_of("ada"), account="ada", update_key=f"c{number}", command="feedback",
                argument=text, message_key=str(answer.completion_id),
            )
        )  # fmt: skip
    await world.cycle.settled()
    await world.cycle.steering.set_paused(False, "console:host")
    await world.cycle.settled()
    told = [notice for notice in world.chat.said_to("ada", "notice") if notice.text.startswith("Learned")]
    assert len(told) == 1
    assert marks(world, str(answer.completion_id)).count("learned") == 2


async def test_a_group_is_not_told_of_lessons_unless_it_asks(world):
    address = world.chat.chat_of("team")

    async def does(command: str, key: str, **facts) -> None:
        await world.chat.post(
            Commanded(address=address, account="ada", update_key=key, command=command, is_group=True, **facts)
        )
        await world.cycle.settled()

    await does("optin", "1")
    await world.chat.post(
        Said(address=address, account="ada", update_key="2", message_key="m", text="What is rain?", is_group=True)
    )
    await world.cycle.settled()
    await does("feedback", "3", argument="Shorter.")
    told = [shown.text for shown in world.chat.shown if shown.kind == "notice" and "Learned" in shown.text]
    assert told == []
    assert (await world.store.run(versions.current, 1)).name == "p1.v1"


async def test_two_versions_are_compared_blind_and_named_after_the_choice(world):
    await world.taught("ada")
    card = await world.chat.command("ada", "compare")
    assert "p1.v1:" not in card.text
    assert card.text.startswith("“And snow?”")
    told = await world.chat.press("ada", card.buttons[0].action)
    found = await world.store.run(one, "SELECT * FROM comparison")
    assert found["choice"] == "first"
    assert {found["first_version"], found["second_version"]} == {"base", "p1.v1"}
    assert f"You chose {found['first_version']}" in told.text
    assert f"You chose {found['first_version']}" in (await world.chat.press("ada", card.buttons[1].action)).text


async def test_the_difference_of_a_lesson_is_shown_with_names(world):
    await world.taught("ada")
    shown = await world.chat.press("ada", "compare")
    assert "base:" in shown.text and "p1.v1:" in shown.text


async def test_somebody_elses_comparison_cannot_be_decided(world):
    await world.taught("ada")
    card = await world.chat.command("ada", "compare")
    assert "of yours" in (await world.chat.press("bob", card.buttons[0].action)).text


@pytest.mark.parametrize(
    ("mode", "asks", "feeds", "state"),
    [
        ("full", False, False, "consumed"),
        ("interactions", True, True, "consumed"),
        ("interactions", False, True, "rejected"),
        ("interactions", True, False, "rejected"),
        ("signals_only", True, True, "rejected"),
        ("off", True, True, "rejected"),
    ],
)
async def test_a_platform_trains_on_what_its_host_says(tmp_path, store, mode, asks, feeds, state):
    settings = Settings(learning={"debounce_s": 0.0}, access={"mode": "open"}, discord={"learning": mode})
    async with running_world(tmp_path, settings, store, "discord") as world:
        address = world.chat.chat_of("ada")
        for key, command, argument, is_interaction in (
            ("1", "optin", "", True),
            ("2", "ask", "What is rain?", asks),
            ("3", "feedback", "Shorter.", feeds),
        ):
            await world.chat.post(
                Commanded(
                    address=address, account="ada", update_key=key, command=command, argument=argument,
                    is_interaction=is_interaction,
                )
            )  # fmt: skip
            await world.cycle.settled()
        assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == state


async def test_where_nothing_may_be_learned_nobody_is_asked(tmp_path, store):
    settings = Settings(access={"mode": "open"})
    async with running_world(tmp_path, settings, store, "discord") as world:
        await world.chat.say("ada", "What is rain?")
        await world.cycle.settled()
        assert world.chat.said_to("ada", "notice") == []


async def test_learn_shows_what_waits_and_begins_it(tmp_path, store):
    settings = Settings(learning={"debounce_s": 3600}, access={"mode": "open"})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        assert "Nothing waits" in (await world.chat.command("ada", "learn")).text
        answer = await answered(world)
        await world.chat.command("ada", "feedback", "Shorter.", str(answer.completion_id))
        assert (await world.chat.command("ada", "learn")).text == "waiting: “Shorter.”"
        assert world.engine.seen.ran == []
        assert "I begin now" in (await world.chat.command("ada", "learn", "now")).text
        await world.chat.wait_mark(str(answer.completion_id), "learned")


async def test_several_lessons_are_undone_at_once(world):
    await world.taught("ada")
    await world.taught("ada", "In verse.")
    assert "base model" in (await world.chat.command("ada", "undo", "2")).text
    assert "1 to 20" in (await world.chat.command("ada", "undo", "many")).text


async def test_learned_lists_lessons_with_their_effect(world):
    await world.taught("ada")
    told = (await world.chat.command("ada", "learned")).text
    assert told.startswith("p1.v1: “Shorter, please.”")


async def test_the_hosts_own_privacy_text_is_shown(tmp_path, store):
    words = tmp_path / "privacy.txt"
    words.write_text("Kept in my cellar.", encoding="utf-8")
    settings = Settings(access={"mode": "open"}, chat={"privacy_file": str(words)})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        assert "Kept in my cellar." in (await world.chat.command("ada", "privacy")).text


async def test_replies_name_the_message_they_answer(world):
    address = world.chat.chat_of("ada")
    await world.chat.post(Commanded(address=address, account="ada", update_key="c", command="usage", own_key="m7"))
    notice = await world.chat.wait_for(lambda shown: shown.kind == "notice")
    assert notice.reply_to == "m7"
    assert notice.reply.personal
    assert replace(address, chat="x").room.chat == "x"


async def test_who_was_asked_why_is_known_until_they_answer_or_talk_or_wait_too_long(world):
    answer = await answered(world)
    address, now = world.chat.chat_of("ada"), datetime.now(UTC)

    async def asked(minutes: float = 0.1) -> int | None:
        return await world.store.run(feedback_events.asked_why, 1, address, now + timedelta(minutes=minutes))

    assert await asked() is None
    await world.chat.command("ada", "bad", "", str(answer.completion_id))
    assert await asked() == answer.completion_id
    assert await asked(minutes=5.5) is None
    assert await world.store.run(feedback_events.asked_why, 2, address, now) is None
    assert await world.store.run(feedback_events.asked_why, 1, world.chat.chat_of("bob"), now) is None

    await world.chat.command("ada", "feedback", "Shorter.", str(answer.completion_id))
    assert await asked() is None


@pytest.mark.parametrize("how", ["taken back", "talked on"])
async def test_nobody_is_asked_why_any_more_once_they_moved_on(world, how):
    answer = await answered(world)
    await world.chat.react("ada", str(answer.completion_id), "👎")
    await world.cycle.settled()
    if how == "taken back":
        await world.chat.react("ada", str(answer.completion_id), "👎", removed=True)
    else:
        await world.chat.say("ada", "What is snow?")
    await world.cycle.settled()
    assert await world.store.run(feedback_events.asked_why, 1, world.chat.chat_of("ada"), datetime.now(UTC)) is None


async def test_a_thumb_with_words_is_listed_as_one(world):
    answer = await answered(world)
    await world.chat.command("ada", "bad", "", str(answer.completion_id))
    assert [row["has_words"] for row in await world.store.run(feedback_events.feedback_list)] == [0]
    await world.chat.press("ada", f"reason:too_long:{answer.completion_id}")
    listed = await world.store.run(feedback_events.feedback_list)
    assert {row["kind"]: row["has_words"] for row in listed}["thumbs_down"] == 1


async def test_asked_what_was_wrong_the_next_message_is_the_reason_and_is_answered_too(world):
    answer = await answered(world)
    await world.chat.command("ada", "bad", "", str(answer.completion_id))
    reply = await world.chat.say("ada", "You went on and on.")
    await world.cycle.settled()
    assert "You went on and on." in reply.text
    assert (await feedback(world))[-1] == ("text", "You went on and on.", False)
    assert "You went on and on." in world.engine.seen.ran[0].experiences[0].teacher_messages[-1].content
    await world.chat.say("ada", "I like trains.")
    assert len(await feedback(world)) == 2


async def test_taking_the_thumb_back_takes_the_reason_that_was_said_too(world):
    await world.cycle.steering.set_paused(True, "console:host")
    answer = await answered(world)
    await world.chat.react("ada", str(answer.completion_id), "👎")
    await world.cycle.settled()
    await world.chat.say("ada", "You went on and on.")
    await world.chat.react("ada", str(answer.completion_id), "👎", removed=True)
    await world.cycle.settled()
    assert [row[2] for row in await feedback(world)] == [True, True]


async def test_another_question_is_no_reason(world):
    answer = await answered(world)
    await world.chat.command("ada", "bad", "", str(answer.completion_id))
    await world.chat.say("ada", "What is snow?")
    await world.cycle.settled()
    assert [row[0] for row in await feedback(world)] == ["thumbs_down"]


async def test_forwarded_words_are_no_remark(world):
    answer = await answered(world)
    await world.chat.command("ada", "bad", "", str(answer.completion_id))
    address = world.chat.chat_of("ada")
    await world.chat.post(
        Said(address=address, account="ada", update_key="f", message_key="f", text="Too long.", is_forwarded=True)
    )
    await world.cycle.settled()
    assert [row[0] for row in await feedback(world)] == ["thumbs_down"]


async def test_a_comparison_shows_a_group_nothing_that_was_learned_in_private(world):
    await world.taught("ada")
    group = replace(world.chat.chat_of("ada"), chat="team")
    await world.chat.post(
        Said(address=group, account="ada", update_key="g1", message_key="g1", text="What is rain?", is_group=True)
    )
    await world.cycle.settled()
    since = len(world.chat.shown)
    await world.chat.post(
        Commanded(address=group, account="ada", update_key="g2", command="compare", is_group=True, own_key="g2")
    )
    notice = await world.chat.wait_for(lambda shown: shown.address == group, since=since)
    assert "base model answers you" in notice.text


async def test_a_reason_is_noted_once_however_often_its_message_is_tried(world):
    answer = await answered(world)
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "bad", "", str(answer.completion_id))
    world.server.faults.is_down = True
    asking = asyncio.create_task(world.chat.say("ada", "Way too long, please be brief."))
    await world.chat.wait_for(lambda shown: "starting again" in shown.text)
    world.server.restart()
    await asking
    await world.cycle.settled()
    assert [row[0] for row in await feedback(world)] == ["thumbs_down", "text"]


async def test_who_was_answered_may_take_a_reaction_back_without_a_role(tmp_path, store):
    settings = Settings(access={"mode": "listed", "roles": ["chatter:cook"]})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        address = world.chat.chat_of("ada")
        asked = Said(address=address, account="ada", update_key="1", text="What is rain?", roles=("cook",))
        await world.chat.post(asked)
        await world.cycle.settled()
        given = Reacted(address=address, account="ada", update_key="2", message_key="1", reaction="👍", roles=("cook",))
        await world.chat.post(given)
        await world.cycle.settled()
        await world.chat.post(replace(given, update_key="3", roles=(), removed=True))
        await world.cycle.settled()
        assert [row[2] for row in await feedback(world)] == [True]


async def test_a_stranger_who_reacts_is_not_written_down(world):
    await answered(world)
    address = world.chat.chat_of("ada")
    await world.chat.post(Reacted(address=address, account="eve", update_key="r", message_key="1", reaction="👍"))
    await world.cycle.settled()
    assert len(await world.store.run(rows, "SELECT id FROM person")) == 1
