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


def test_all_chats_together_get_thirty_a_second():
    limiter = Limiter()
    sent = [limiter.ask(chat_id, Urgency.FINAL, 0.0) for chat_id in range(1, 41)]
    assert sent.count(0.0) == 30
    assert sent[-1] == pytest.approx(1 / 30)
    assert limiter.ask(99, Urgency.FINAL, 0.034) == 0


def test_a_preview_leaves_room_for_the_final():
    limiter = Limiter()
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
    ("urgency", "n_finals_before"),
    [(Urgency.TYPING, 10), (Urgency.DRAFT, 15), (Urgency.FIRST_DRAFT, 24), (Urgency.REACTION, 27)],
)
def test_under_load_typing_goes_first_then_more_text_then_first_texts_then_reactions(urgency, n_finals_before):
    """Of thirty a second, each kind leaves its part to what is more urgent."""
    answers = []
    for n_finals in (n_finals_before - 1, n_finals_before):
        limiter = Limiter(overall=(30, 0.001))
        for chat_id in range(1_000, 1_000 + n_finals):
            limiter.ask(chat_id, Urgency.FINAL, 0.0)
        answers.append(limiter.ask(PRIVATE, urgency, 0.0))
    assert answers == [0, None]


def test_chats_that_are_silent_are_forgotten():
    limiter = Limiter()
    for number in range(1, 50):
        limiter.ask(number, Urgency.FINAL, float(number))
    limiter.ask(1_000, Urgency.FINAL, 10_000.0)
    assert len(limiter._chats) == 1
