"""What Telegram's refusals mean, and what to do about them. Pure; the bot's token never gets into a message."""

from __future__ import annotations

import re
from datetime import timedelta

from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError

from claasbot.errors import ChatError, ChatGone

_GONE = re.compile(
    r"blocked by the user|kicked|deactivated|not a member|initiate conversation|chat was deleted|chat not found|"
    r"thread not found|TOPIC_DELETED|PEER_ID_INVALID",
    re.IGNORECASE,
)
_LOST = re.compile(r"message to edit not found|can't be edited|MESSAGE_ID_INVALID", re.IGNORECASE)
_TOKEN = re.compile(r"(?<!\d)\d{3,}:[\w-]{10,}|/bot[^/\s]+")

_ACTIONS = (
    (re.compile(r"not enough rights|have no rights|CHAT_WRITE_FORBIDDEN", re.I), "let the bot write in that chat"),
    (re.compile(r"TOPIC_CLOSED", re.I), "open the topic again"),
    (re.compile(r"too long|too large|too big", re.I), "make it shorter"),
)


class MessageLost(ChatError):
    """The message that was to be edited cannot be edited any more: send a new one."""


def as_chat_error(error: TelegramError, chat: str) -> ChatError:
    said = scrubbed(error)
    if isinstance(error, Forbidden | BadRequest) and _GONE.search(said):
        return ChatGone(
            f"chat {chat!r} is gone: {said}; nothing can be sent there until somebody writes to the bot again"
        )
    if isinstance(error, BadRequest) and _LOST.search(said):
        return MessageLost(f"a message in chat {chat!r} cannot be edited: {said}; send a new one")
    if isinstance(error, InvalidToken):
        return ChatError("Telegram does not accept the bot's token; put a new one from @BotFather into the settings")
    if isinstance(error, RetryAfter):
        return ChatError(f"Telegram goes on refusing messages to chat {chat!r}: {said}; try again later")
    if is_network(error):
        return ChatError(f"Telegram was not reached for chat {chat!r}: {said}; check the network and try again")
    action = next((action for pattern, action in _ACTIONS if pattern.search(said)), "look at the text and the chat")
    return ChatError(f"Telegram refused a message to chat {chat!r}: {said}; {action}")


def scrubbed(error: BaseException) -> str:
    """What the error says, on one line, without anything that looks like a token."""
    return _TOKEN.sub("…", " ".join(str(error).split())) or type(error).__name__


def retry_after_s(error: RetryAfter) -> float:
    """A number now, a timedelta in python-telegram-bot's future."""
    after = error.retry_after
    return after.total_seconds() if isinstance(after, timedelta) else float(after)


def is_about_formatting(error: TelegramError) -> bool:
    """The only refusal after which the same text is worth sending without its formatting."""
    return isinstance(error, BadRequest) and re.search(r"entit", error.message, re.I) is not None


def is_unchanged(error: TelegramError) -> bool:
    return isinstance(error, BadRequest) and "not modified" in error.message


def is_network(error: TelegramError) -> bool:
    """The connection or the server, not the request (which the library counts among them)."""
    return isinstance(error, NetworkError) and not isinstance(error, BadRequest)


def trouble(error: BaseException) -> str:
    """For the dashboard: what is wrong with receiving, and what to do."""
    if isinstance(error, InvalidToken):
        return "Telegram does not accept the token: get a new one from @BotFather (/token) and put it into the settings"
    if isinstance(error, Conflict):
        if "webhook" in error.message.lower():
            return "a webhook is set for this bot: stop the program that set it, or set telegram.webhook_url here"
        return "another program receives with this bot's token: stop it, or give each program a bot of its own"
    if isinstance(error, RetryAfter):
        return f"Telegram asks for a pause of {retry_after_s(error):.0f} s"
    return f"Telegram is not reached ({scrubbed(error)}): check the network; it is tried again"


def pause_s(error: BaseException, n_failures: int) -> float:
    """Before receiving is tried again; `n_failures` counts from 1. What only a person can mend is tried rarely."""
    if isinstance(error, RetryAfter):
        return retry_after_s(error)
    if isinstance(error, InvalidToken | Forbidden):
        return min(3600.0, 60.0 * 2.0 ** min(n_failures - 1, 10))
    if isinstance(error, Conflict):  # at first perhaps our own poll from before a restart
        return min(300.0, 5.0 * 2.0 ** min(n_failures - 1, 10))
    return min(30.0, 0.5 * 2.0 ** min(n_failures - 1, 10))
