"""An answer that grows before the person's eyes, and always arrives whole. Simulated platform."""

from __future__ import annotations

import asyncio

import pytest

from claasbot.chat.telegram.limiter import Limiter
from claasbot.domain.conversation import Button, Pressed, Reacted, Reply, Stopped
from claasbot.errors import ChatGone
from tests.chat.telegram.running_bot import running

FIRST = "Rain is water that falls"
REST = " from **clouds**."
ANSWER = Reply(text=FIRST + REST, completion_id=7, version_name="base", buttons=(Button(label="Good", action="good"),))


@pytest.fixture
async def bot(fake):
    async with running(fake) as bot:
        yield bot


@pytest.fixture
def ada(fake):
    return fake.person("Ada")


@pytest.fixture
def chat(fake, ada):
    return fake.private_chat(ada)


@pytest.fixture
def group(fake, ada):
    return fake.group("Group", members=[ada])


async def opened(bot, chat, reply_to=None, text=FIRST):
    """A writer whose first preview is to be seen, and which pauses before the next."""
    writer = await bot.chat.open_reply(bot.address(chat), reply_to)
    await writer.write(text)
    await bot.fake.until(lambda: chat.draft or chat.messages[-1].sender.is_bot)
    await pause(bot)
    return writer


async def pause(bot):
    """Until the writer waits to show more; "typing…", every 4 s, has ended then."""
    await bot.fake.until(lambda: bot.clock.sleeping and 4.0 not in bot.clock.sleeps_for())


# In private chats: native drafts.


async def test_a_draft_with_a_stop_button_grows_and_gives_way_to_the_answer(fake, bot, chat):
    writer = await opened(bot, chat)
    assert chat.draft.text == FIRST and chat.draft.can_stop and chat.draft.keep_on_stop
    await writer.write(REST)
    await fake.until(lambda: bot.clock.sleeps_for()[0] == 0.5)
    bot.clock.advance(0.5)
    await fake.until(lambda: chat.draft.text == "Rain is water that falls from clouds.")
    assert chat.draft.shown.spans("bold") == ["clouds"] and chat.draft.n_updates == 2
    (key,) = await writer.finish(ANSWER)
    assert [(message.text, message.buttons) for message in chat.messages] == [
        ("Rain is water that falls from clouds.", ["Good"])
    ]
    assert key == str(chat.messages[0].id) and chat.draft is None


async def test_a_few_letters_are_not_worth_a_preview(fake, bot, chat):
    writer = await bot.chat.open_reply(bot.address(chat), None)
    await writer.write("Rain is water")
    await fake.until(lambda: chat.typing)
    assert chat.previews == []
    await writer.finish(Reply(text="Rain is water."))
    assert chat.previews == [] and chat.messages[-1].text == "Rain is water."


async def test_what_looks_the_same_is_not_shown_again(fake, bot, chat):
    writer = await opened(bot, chat)
    for delta in (" ", "\n", "\n"):
        await writer.write(delta)
        bot.clock.advance(1)
        await asyncio.sleep(0)
    await writer.write("And more.")
    await fake.until(lambda: len(chat.previews) == 2)
    assert chat.previews == [FIRST, f"{FIRST}\n\nAnd more."]
    await writer.finish(ANSWER)


async def test_typing_is_shown_until_there_is_text(fake, bot, chat):
    writer = await bot.chat.open_reply(bot.address(chat), None)
    for n_times in (1, 2, 3):
        await fake.until(lambda n=n_times: len(chat.actions) == n and bot.clock.sleeps_for() == [4.0])
        bot.clock.advance(4)
    await writer.write(FIRST)
    await fake.until(lambda: chat.draft)
    n_actions = len(chat.actions)
    for _ in range(5):
        bot.clock.advance(4)
        await asyncio.sleep(0)
    assert len(chat.actions) == n_actions
    await writer.finish(ANSWER)


async def test_writing_never_waits_for_the_platform(fake, bot, chat):
    hold = fake.hold_next("sendMessageDraft")
    writer = await bot.chat.open_reply(bot.address(chat), None)
    await writer.write(FIRST)
    await hold.reached.wait()
    for _ in range(1_000):
        await asyncio.wait_for(writer.write("x"), 0.1)
    assert chat.previews == []
    hold.release()
    await writer.finish(ANSWER)
    assert [message.text for message in chat.messages] == ["Rain is water that falls from clouds."]


async def test_a_preview_on_its_way_does_not_come_after_the_answer(fake, bot, chat):
    hold = fake.hold_next("sendMessageDraft")
    writer = await bot.chat.open_reply(bot.address(chat), None)
    await writer.write(FIRST)
    await hold.reached.wait()
    finishing = asyncio.create_task(writer.finish(ANSWER))
    await asyncio.wait([finishing], timeout=0.05)
    assert chat.messages == [], "the answer waits for the draft that is on its way"
    hold.release()
    await finishing
    assert chat.draft is None and len(chat.messages) == 1


@pytest.mark.parametrize("status", [400, 404])
async def test_where_drafts_are_refused_a_message_grows_instead_from_then_on(fake, bot, chat, status):
    fake.fail_next("sendMessageDraft", status, "refused")
    for n_answers in (1, 2):
        writer = await opened(bot, chat)
        assert (chat.messages[-1].text, chat.messages[-1].buttons) == (FIRST, ["Stop"])
        await writer.finish(ANSWER)
        assert len(chat.messages) == n_answers
        assert chat.messages[-1].buttons == ["Good"]
        bot.clock.advance(60)  # the limits forget
    assert len(fake.calls_of("sendMessageDraft")) == 1


async def test_one_refused_draft_among_good_ones_ends_only_that_answers_previews(fake, bot, chat):
    writer = await opened(bot, chat)
    fake.fail_next("sendMessageDraft", 400, "refused")
    await writer.write(REST)
    bot.clock.advance(1)
    await fake.until(lambda: fake.refusals)
    await writer.finish(ANSWER)
    assert len(chat.messages) == 1
    await opened(bot, chat, text="Snow is frozen water.")
    assert chat.draft.text == "Snow is frozen water."


async def test_in_a_topic_the_draft_and_the_answer_stand_in_the_topic(fake, bot, ada):
    forum = fake.group("Forum", members=[ada], forum=True)
    topic = forum.topic("Weather")
    writer = await bot.chat.open_reply(bot.address(forum, topic), None)
    await writer.write(FIRST)
    await fake.until(lambda: forum.in_thread(topic))
    await writer.finish(ANSWER)
    assert [message.thread for message in forum.messages] == [topic]
    assert {thread for thread, _ in forum.actions} == {topic}


async def test_typing_in_the_general_topic_names_it(fake, bot, ada):
    forum = fake.group("Forum", members=[ada], forum=True)
    ada.say(forum, "/help")
    await fake.until(lambda: bot.accepted)
    writer = await bot.chat.open_reply(bot.address(forum), None)
    await fake.until(lambda: forum.actions)
    assert fake.calls_of("sendChatAction")[0]["message_thread_id"] == 1
    await writer.finish(ANSWER)
    assert "message_thread_id" not in fake.calls_of("sendMessage")[0].arguments


# In groups: a message that is edited.


async def test_in_a_group_a_message_with_a_stop_button_grows_and_becomes_the_answer(fake, bot, group, ada):
    question = ada.say(group, "/help")
    writer = await opened(bot, group, str(question.id))
    preview = group.messages[-1]
    assert (preview.text, preview.buttons, preview.reply_to) == (FIRST, ["Stop"], question)
    await writer.write(REST)
    pause_s = 3 + len(FIRST) / 1000
    await fake.until(lambda: bot.clock.sleeps_for() == [pytest.approx(pause_s)])
    bot.clock.advance(pause_s)
    await fake.until(lambda: preview.text == "Rain is water that falls from clouds.")
    assert preview.buttons == ["Stop"]
    assert await writer.finish(ANSWER) == (str(preview.id),)
    assert preview.buttons == ["Good"] and len(group.messages) == 2


async def test_pressing_stop_stops_and_what_was_written_stays(fake, bot, group, ada):
    writer = await opened(bot, group)
    press = ada.press(group.messages[-1], "Stop")
    stopped = await bot.next(Stopped)
    assert (stopped.address, stopped.account) == (bot.address(group), str(ada.id))
    await fake.until(lambda: press.is_answered)
    await writer.finish(Reply(text="Rain is water"))
    assert (group.messages[-1].text, group.messages[-1].buttons) == ("Rain is water", [])


async def test_the_same_text_at_the_end_is_no_error(fake, bot, group):
    writer = await opened(bot, group)
    fake.fail_next(
        "editMessageText", 400, "Bad Request: message is not modified: exactly the same as a current content"
    )
    (key,) = await writer.finish(Reply(text=FIRST))
    assert key == str(group.messages[-1].id)


async def test_a_preview_that_somebody_deleted_does_not_take_the_answer_with_it(fake, bot, group):
    writer = await opened(bot, group)
    fake.delete(group.messages[-1])
    (key,) = await writer.finish(ANSWER)
    assert [(str(message.id), message.text) for message in group.messages] == [
        (key, "Rain is water that falls from clouds.")
    ]


async def test_a_long_answer_begins_in_its_preview_and_has_the_buttons_at_its_end(fake, bot, group):
    writer = await opened(bot, group)
    keys = await writer.finish(Reply(text="word " * 1_500, buttons=ANSWER.buttons))
    assert [message.buttons for message in group.messages] == [[], ["Good"]]
    assert keys == tuple(str(message.id) for message in group.messages)


async def test_of_a_long_answer_the_preview_shows_what_is_being_written(fake, bot, chat):
    await opened(bot, chat, text="line\n" * 1_000 + "the newest words")
    assert chat.draft.text.endswith("the newest words")


async def test_a_reaction_before_the_answer_is_finished_finds_its_message(fake, bot, group, ada):
    writer = await opened(bot, group)
    ada.react(group.messages[-1], "👍")
    reacted = await bot.next(Reacted)
    assert await writer.finish(ANSWER) == (reacted.message_key,)


async def test_a_group_that_is_upgraded_in_the_middle_gets_its_answer(fake, bot, ada):
    group = fake.group("Group", members=[ada], supergroup=False)
    writer = await opened(bot, group)
    new = group.upgrade()
    await writer.finish(ANSWER)
    assert new.messages[-1].text == "Rain is water that falls from clouds."


# Flood control, refusals, and the end.


async def test_after_flood_control_there_are_no_more_previews_and_the_answer_comes_once(fake, bot, chat):
    writer = await opened(bot, chat)
    fake.fail_next("sendMessageDraft", 429, retry_after=200)
    await writer.write(REST)
    bot.clock.advance(1)
    await fake.until(lambda: fake.refusals)
    await writer.write(" And it is wet.")
    finishing = asyncio.create_task(writer.finish(ANSWER))
    await fake.until(lambda: bot.clock.sleeps_for() == [200])
    assert chat.messages == []
    bot.clock.advance(200)
    await finishing
    assert [message.text for message in chat.messages] == ["Rain is water that falls from clouds."]
    assert len(fake.calls_of("sendMessageDraft")) == 2


async def test_after_flood_control_drafts_slow_down_and_come_back_to_their_pace(fake, bot, chat):
    writer = await opened(bot, chat)
    fake.fail_next("sendMessageDraft", 429, retry_after=1)
    await writer.write(REST)
    bot.clock.advance(1)
    await fake.until(lambda: fake.refusals)
    elsewhere = fake.private_chat(fake.person("Bob"))
    later = await opened(bot, elsewhere)
    assert 0.5 < bot.clock.sleeps_for()[0] <= 1
    for number in range(8):
        bot.clock.advance(bot.clock.sleeps_for()[0])
        await later.write(f" Drop {number}.")
        await fake.until(lambda n=number: elsewhere.draft.text.endswith(f"Drop {n}."))
        await pause(bot)
    assert bot.clock.sleeps_for() == [0.5]


async def test_the_answer_waits_out_its_own_flood_control_and_becomes_the_preview(fake, bot, group):
    writer = await opened(bot, group)
    fake.fail_next("editMessageText", 429, retry_after=40, times=2)
    finishing = asyncio.create_task(writer.finish(ANSWER))
    for _ in range(2):
        await fake.until(lambda: bot.clock.sleeps_for() == [40])
        bot.clock.advance(40)
    await finishing
    assert [message.text for message in group.messages] == ["Rain is water that falls from clouds."]


@pytest.mark.parametrize("is_after", [False, True])
async def test_a_lost_edit_is_repeated_because_that_doubles_nothing(fake, bot, group, is_after):
    writer = await opened(bot, group)
    fake.fail_next("editMessageText", 502, after=is_after)
    finishing = asyncio.create_task(writer.finish(ANSWER))
    await fake.until(lambda: bot.clock.sleeps_for() == [1])
    bot.clock.advance(1)
    await finishing
    assert [message.text for message in group.messages] == ["Rain is water that falls from clouds."]


async def test_a_connection_that_breaks_does_not_lose_the_answer(fake, bot, chat):
    writer = await opened(bot, chat)
    fake.drop_next("sendMessage", times=2)
    finishing = asyncio.create_task(writer.finish(ANSWER))
    for pause_s in (1, 2):
        await fake.until(lambda wanted=pause_s: bot.clock.sleeps_for() == [wanted])
        bot.clock.advance(pause_s)
    await finishing
    assert [message.text for message in chat.messages] == ["Rain is water that falls from clouds."]


async def test_a_first_preview_that_perhaps_arrived_is_not_sent_again(fake, bot, group):
    fake.drop_next("sendMessage", after=True)
    before = asyncio.all_tasks()
    writer = await bot.chat.open_reply(bot.address(group), None)
    typing_and_previews = asyncio.all_tasks() - before
    await writer.write(FIRST)
    ended, _ = await asyncio.wait(typing_and_previews, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert len(ended) == 1, "there are no more previews"
    assert len(fake.calls_of("sendMessage")) == 1
    await writer.finish(ANSWER)
    assert len(fake.calls_of("sendMessage")) == 2


async def test_who_waits_for_room_goes_before_who_comes_later(fake):
    async with running(fake, limiter=Limiter()) as bot:
        people = [fake.person(f"Person{number}") for number in range(5)]
        *others, first, second = [fake.private_chat(person) for person in people]
        await asyncio.gather(*(bot.chat.send(bot.address(other), ANSWER) for other in others))
        waits = asyncio.create_task(bot.chat.send(bot.address(first), ANSWER))
        await fake.until(lambda: bot.clock.sleeping)
        bot.clock.time_s += bot.clock.sleeps_for()[0]  # there is room now, and it was not noticed yet
        comes_later = asyncio.create_task(bot.chat.send(bot.address(second), ANSWER))
        await asyncio.wait([comes_later], timeout=0.05)
        assert not second.messages
        bot.clock.advance(0)
        await waits
        await fake.until(lambda: bot.clock.sleeps_for())
        bot.clock.advance(1)
        await comes_later
        assert first.messages and second.messages


async def test_a_preview_for_which_there_is_no_room_is_tried_again_soon(fake, chat):
    async with running(fake, limiter=Limiter()) as bot:
        others = [fake.private_chat(fake.person(f"Person{number}")) for number in range(3)]
        await asyncio.gather(*(bot.chat.send(bot.address(other), ANSWER) for other in others))
        writer = await bot.chat.open_reply(bot.address(chat), None)
        await writer.write(FIRST)
        await fake.until(lambda: len(bot.clock.sleeps_for()) == 2)
        assert bot.clock.sleeps_for()[0] == pytest.approx(0.2) and not chat.draft
        bot.clock.advance(0.2)
        await fake.until(lambda: chat.draft)
        await writer.finish(ANSWER)


async def test_finals_are_not_held_up_by_a_strict_rate_limit_for_long(fake, bot, chat):
    """The simulated platform counts drafts too, more strictly than we assume."""
    fake.limit_rates()
    for number in range(4):
        writer = await bot.chat.open_reply(bot.address(chat), None)
        for word in range(12):
            await writer.write(f"some more words, {word} ")
            for _ in range(10):
                await asyncio.sleep(0)
            bot.clock.advance(0.5)
            fake.advance(0.5)
        finishing = asyncio.create_task(writer.finish(Reply(text=f"Answer {number}")))
        while not finishing.done():
            await asyncio.wait([finishing], timeout=0.01)
            bot.clock.advance(0.5)
            fake.advance(0.5)
        await finishing
    assert [message.text for message in chat.messages] == [f"Answer {number}" for number in range(4)]


async def test_a_person_who_blocks_the_bot_in_the_middle_ends_it_for_good(fake, bot, chat, ada):
    writer = await opened(bot, chat)
    ada.block(chat)
    with pytest.raises(ChatGone):
        await writer.finish(ANSWER)


async def test_an_answer_that_broke_off_is_a_notice(fake, bot, chat):
    writer = await opened(bot, chat)
    await writer.finish(Reply(text="(This answer broke off_here_.)", notice=True))
    assert chat.messages[-1].text == "(This answer broke off_here_.)"


async def test_an_answer_nobody_finishes_leaves_nothing_running(fake, chat):
    async with running(fake) as bot:
        before = asyncio.all_tasks()
        await opened(bot, chat)
        started = asyncio.all_tasks() - before
        assert started
    assert all(task.done() for task in started)


async def test_buttons_under_an_answer_can_be_pressed(fake, bot, chat, ada):
    writer = await opened(bot, chat)
    (key,) = await writer.finish(ANSWER)
    ada.press(chat.messages[-1], "Good")
    assert (await bot.next(Pressed)).message_key == key
