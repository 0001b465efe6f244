"""What Telegram's refusals mean, and how long receiving pauses after trouble."""

from __future__ import annotations

from datetime import timedelta

import pytest
from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, NetworkError, RetryAfter, TimedOut

from claasbot.chat.telegram.refusals import (
    as_chat_error,
    is_about_formatting,
    is_network,
    pause_s,
    retry_after_s,
    scrubbed,
    trouble,
)
from claasbot.errors import ChatGone

TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"


def test_no_message_shows_the_token():
    for text in (
        f"The token `{TOKEN}` was rejected",
        f"https://api.telegram.org/bot{TOKEN}/sendMessage",
        "/bot1:x/getMe",
    ):
        error = NetworkError(text)
        for shown in (scrubbed(error), trouble(error), str(as_chat_error(error, "7"))):
            assert TOKEN not in shown and "AAHdq" not in shown and "1:x" not in shown
    assert TOKEN not in trouble(InvalidToken(f"The token `{TOKEN}` was rejected by the server."))


@pytest.mark.parametrize(
    "error",
    [
        Forbidden("Forbidden: bot was blocked by the user"),
        Forbidden("Forbidden: user is deactivated"),
        Forbidden("Forbidden: bot was kicked from the supergroup chat"),
        Forbidden("Forbidden: bot is not a member of the supergroup chat"),
        BadRequest("Chat not found"),
        BadRequest("Message thread not found"),
    ],
)
def test_what_is_gone_is_gone_for_good(error):
    assert isinstance(as_chat_error(error, "7"), ChatGone)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (BadRequest("TOPIC_CLOSED"), "open the topic"),
        (BadRequest("Not enough rights to send text messages to the chat"), "let the bot write"),
        (NetworkError("httpx.ConnectError: refused"), "check the network"),
        (InvalidToken("Unauthorized"), "BotFather"),
        (BadRequest("SOMETHING_NEW"), "SOMETHING_NEW"),
    ],
)
def test_other_refusals_say_what_to_do(error, action):
    told = as_chat_error(error, "7")
    assert action in str(told) and not isinstance(told, ChatGone)


def test_only_a_parse_error_is_about_formatting():
    assert is_about_formatting(BadRequest("Can't parse entities: Unsupported start tag"))
    assert is_about_formatting(BadRequest("ENTITY_BOUNDS_INVALID"))
    for other in (RetryAfter(3), BadRequest("Message is too long"), Forbidden("entities"), TimedOut()):
        assert not is_about_formatting(other)


def test_a_refused_request_is_no_network_trouble():
    """The library counts 400 among the network errors."""
    assert is_network(TimedOut()) and is_network(NetworkError("Bad Gateway"))
    assert not is_network(BadRequest("no")) and not is_network(RetryAfter(3))


def test_a_pause_is_a_number_of_seconds_however_the_library_says_it(monkeypatch):
    assert retry_after_s(RetryAfter(7)) == 7
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    assert retry_after_s(RetryAfter(timedelta(seconds=7.5))) == 7.5


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (NetworkError("down"), 0.5, 30),
        (Conflict("terminated by other getUpdates request"), 5, 300),
        (InvalidToken("Unauthorized"), 60, 3_600),
        (RetryAfter(17), 17, 17),
    ],
)
def test_pauses_grow_and_what_only_a_person_can_mend_is_tried_rarely(error, first, last):
    pauses = [pause_s(error, n_failures) for n_failures in range(1, 5_000)]
    assert pauses[0] == first and pauses[-1] == last and pauses == sorted(pauses)
