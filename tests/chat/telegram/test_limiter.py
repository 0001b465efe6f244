"""Who may send what when, with the clock passed in."""

from __future__ import annotations

import pytest

from claasbot.chat.telegram.limiter import Limiter, Urgency

PRIVATE, GROUP = 7, -7


def finals_sent(limiter: Limiter, chat_id: int, seconds: float) -> list[float]:
    """When finals leave that are always there to be sent, each waiting as it is told."""
    now, sent = 0.0, []
    while now <= seconds:
        wait_s = limiter.ask(chat_id, Urgency.FINAL, now)
        assert wait_s is not None
        if wait_s == 0:
            sent.append(now)
        now += wait_s
    return sent


def test_a_group_never_gets_more_than_twenty_messages_in_a_minute():
    sent = finals_sent(Limiter(), GROUP, 600)
    assert max(sum(start <= at < start + 60 for at in sent) for start in sent) == 19  # 5 at once, then every 4 s


def test_a_private_chat_gets_one_a_second_after_a_short_burst():
    assert finals_sent(Limiter(), PRIVATE, 4) == pytest.approx([0, 0, 0, 1, 2, 3, 4])


def test_never_more_than_thirty_go_out_within_one_second():
    """Also after a quiet spell, when everybody's answer is ready at once."""
    limiter, now, sent = Limiter(), 100.0, []
    for chat_id in range(1, 200):
        while wait_s := limiter.ask(chat_id, Urgency.FINAL, now):
            now += wait_s
        sent.append(now)
    assert max(sum(start <= at < start + 1 for at in sent) for start in sent) <= 30
    assert sent[-1] < 100 + 199 / 25


def test_a_chat_that_has_to_pause_says_so_apart_from_what_all_wait_for():
    limiter = Limiter()
    for chat_id in range(1_000, 1_003):
        limiter.ask(chat_id, Urgency.FINAL, 0.0)
    assert limiter.ask(PRIVATE, Urgency.FINAL, 0.0) > 0
    assert limiter.wait_in_chat_s(PRIVATE, Urgency.FINAL, 0.0) == 0
    limiter.refused(PRIVATE, 5, 0.0)
    assert limiter.wait_in_chat_s(PRIVATE, Urgency.FINAL, 1.0) == 4


def test_a_preview_leaves_room_for_the_final():
    limiter = Limiter(overall=(30, 30.0))
    assert [limiter.ask(PRIVATE, Urgency.PREVIEW, 0.0) for _ in range(3)] == [0, 0, None]
    assert limiter.ask(PRIVATE, Urgency.FINAL, 0.0) == 0


def test_previews_and_typing_are_dropped_where_finals_and_reactions_wait():
    limiter = Limiter()
    limiter.refused(PRIVATE, 5, 0.0)
    asked = {urgency: limiter.ask(PRIVATE, urgency, 1.0) for urgency in Urgency}
    assert {urgency for urgency, wait_s in asked.items() if wait_s == 4} == {Urgency.FINAL, Urgency.REACTION}
    assert all(wait_s in (4, None) for wait_s in asked.values())


def test_a_reaction_does_not_wait_for_minutes():
    limiter = Limiter()
    limiter.refused(PRIVATE, 200, 0.0)
    assert limiter.ask(PRIVATE, Urgency.REACTION, 0.0) is None
    assert limiter.ask(PRIVATE, Urgency.FINAL, 0.0) == 200


def test_the_pause_of_one_chat_is_not_the_pause_of_another():
    limiter = Limiter()
    limiter.refused(GROUP, 200, 0.0)
    assert limiter.ask(PRIVATE, Urgency.FINAL, 0.0) == 0
    assert limiter.cooling_s(50.0) == 150


def test_a_shorter_pause_does_not_shorten_a_longer_one():
    limiter = Limiter()
    limiter.refused(GROUP, 200, 0.0)
    limiter.refused(GROUP, 3, 1.0)
    assert limiter.ask(GROUP, Urgency.FINAL, 1.0) == 199


@pytest.mark.parametrize(
    ("urgency", "room"),
    [
        (Urgency.TYPING, 3),
        (Urgency.DRAFT, 2.5),
        (Urgency.FIRST_DRAFT, 2),
        (Urgency.REACTION, 1.5),
        (Urgency.FINAL, 1),
    ],
)
def test_under_load_typing_goes_first_then_more_text_then_first_texts_then_reactions(urgency, room):
    """Each kind leaves its part of the room to what is more urgent."""
    answers = []
    for tokens in (room - 0.01, room):
        limiter = Limiter(overall=(tokens, 0.0001))
        answers.append(limiter.ask(PRIVATE, urgency, 0.0) == 0)
    assert answers == [False, True]


def test_chats_that_are_silent_are_forgotten():
    limiter = Limiter()
    for number in range(1, 50):
        limiter.ask(number, Urgency.FINAL, float(number))
    limiter.ask(1_000, Urgency.FINAL, 10_000.0)
    assert len(limiter._chats) == 1
