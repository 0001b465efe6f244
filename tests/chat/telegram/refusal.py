"""How the server says no: one exception, and the sentences of the official server that clients match on.

The texts are those of tdlib/telegram-bot-api 10.0 (Client.cpp) and of Telegram's own error names.
"""

from __future__ import annotations

from typing import Any

NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current "
    "content and reply markup of the message"
)
QUERY_TOO_OLD = "query is too old and response timeout expired or query ID is invalid"
OTHER_POLLER = (
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"  # 409
)
WEBHOOK_IS_SET = (
    "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
)
WEBHOOK_WAS_SET = "Conflict: terminated by setWebhook request"


class Refused(Exception):
    """A call that the server refuses: HTTP status, description and the `parameters` of the answer."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters

    def body(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"ok": False, "error_code": self.status, "description": self.description}
        return answer | ({"parameters": self.parameters} if self.parameters else {})


def bad_request(message: str) -> Refused:
    """400 as the official server words it: the first letter lowered, but for error names such as MESSAGE_TOO_LONG."""
    is_name = len(message) > 1 and (message[1] == "_" or message[1].isupper())
    return Refused(400, "Bad Request: " + (message if is_name else message[:1].lower() + message[1:]))


def forbidden(message: str) -> Refused:
    return Refused(403, f"Forbidden: {message}")


def flood(retry_after: int) -> Refused:
    return Refused(429, f"Too Many Requests: retry after {retry_after}", retry_after=retry_after)


def upgraded(new_chat_id: int) -> Refused:
    text = "Bad Request: group chat was upgraded to a supergroup chat"
    return Refused(400, text, migrate_to_chat_id=new_chat_id)
