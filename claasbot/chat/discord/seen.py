"""What the client remembers of recent messages: ids alone, never a text. Lost with a restart, and then done without."""

from __future__ import annotations

from collections import OrderedDict

_MOST = 20_000


class Seen:
    """Who addressed the bot with which message."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[int, str] = OrderedDict()

    def note(self, message_id: int, account: str) -> None:
        """`account`: who wrote it to the bot; "" for a message that is none of its business."""
        self._accounts[message_id] = account
        self._accounts.move_to_end(message_id)
        if len(self._accounts) > _MOST:
            self._accounts.popitem(last=False)

    def forget(self, account: str) -> None:
        for message_id in [key for key, theirs in self._accounts.items() if theirs == account]:
            del self._accounts[message_id]

    def account_of(self, message_id: int) -> str | None:
        """None for a message that was never seen, or long ago."""
        return self._accounts.get(message_id)
