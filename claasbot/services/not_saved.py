"""What people are told while the store takes nothing: once in each chat, and never "noted"."""

from __future__ import annotations

import asyncio
import logging

from claasbot.domain.conversation import ChatAddress, ChatEvent, Commanded, Edited, Pressed, Reacted, Reply, Said
from claasbot.errors import ClaasbotError
from claasbot.ports import ChatClient

log = logging.getLogger(__name__)

NOT_SAVED = Reply(
    text="I cannot save anything right now, so that is not noted yet. I try again by myself; if I stay silent, please "
    "say it once more.",
    notice=True,
    data={"problem": True},
)
_PATIENCE_S = 2.0


class NotSaved:
    """Remembers which chats were told, until something of theirs is saved again."""

    def __init__(self, clients: dict[tuple[str, str], ChatClient]) -> None:
        self._clients = clients
        self._told: set[ChatAddress] = set()

    async def tell(self, event: ChatEvent) -> None:
        """Whoever waits behind this waits two seconds at most."""
        address = event.address
        client = self._clients.get((address.platform, address.bot_account))
        if (
            client is None
            or address in self._told
            or not isinstance(event, Said | Commanded | Reacted | Pressed | Edited)
        ):
            return
        self._told.add(address)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await client.send(address, NOT_SAVED)
        except (ClaasbotError, TimeoutError) as error:
            log.info("update %s: that it is not saved could not be told: %s", event.update_key, type(error).__name__)

    def is_over(self, address: ChatAddress) -> None:
        self._told.discard(address)
