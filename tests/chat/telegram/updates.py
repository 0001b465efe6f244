"""The row of updates of one bot: who subscribed to what, long polls, acknowledgement, and the webhook instead.

Subscription is looked at when an update arises, not when it is fetched, and stays until somebody names another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiogram.types import Update

from tests.chat.telegram import referee
from tests.chat.telegram.refusal import OTHER_POLLER, WEBHOOK_IS_SET, WEBHOOK_WAS_SET, Refused
from tests.chat.telegram.world import Json, World

EVERY_KIND = frozenset(Update.model_fields) - {"update_id"}
NOT_BY_DEFAULT = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
_KEPT_S = 86_400
_AGAIN_AFTER_S = 0.05


@dataclass(kw_only=True)
class Webhook:
    """Where updates are posted to, and how that went."""

    url: str
    secret_token: str | None = None
    max_connections: int = 40
    last_error: str | None = None
    last_error_date: int | None = None
    n_posted: int = 0


@dataclass(kw_only=True)
class UpdateQueue:
    """Updates until they are acknowledged."""

    world: World
    problem: Callable[[str], None]
    kinds: frozenset[str] = EVERY_KIND - NOT_BY_DEFAULT
    webhook: Webhook | None = None
    pending: list[Json] = field(default_factory=list)
    history: list[Json] = field(default_factory=list)
    """Everything that was ever put into the row."""
    skipped: list[tuple[str, Json]] = field(default_factory=list)
    """What was not, because nobody had subscribed to it."""
    _next_id: int = 700_001
    _arose_at: dict[int, float] = field(default_factory=dict)
    _poll: asyncio.Future[None] | None = None
    _sender: asyncio.Task[None] | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_polled(self) -> bool:
        """Whether a getUpdates waits for the next update."""
        return self._poll is not None

    def add(self, kind: str, payload: Json) -> None:
        assert kind in EVERY_KIND, kind
        if kind not in self.kinds:
            self.skipped.append((kind, payload))
            return
        update = {"update_id": self._next_id, kind: payload}
        for fault in referee.faults_of_update(update):
            self.problem(f"the simulation made an update that is none: {fault}")
        self._arose_at[self._next_id] = self.world.now()
        self._next_id += 1
        self.pending.append(update)
        self.history.append(update)
        self._arrived.set()
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)
        self.world.changed()

    def subscribe(self, kinds: list[str] | None) -> None:
        """None keeps the subscription; a list without a known name means the default."""
        if kinds is not None:
            self.kinds = frozenset(kind.lower() for kind in kinds) & EVERY_KIND or EVERY_KIND - NOT_BY_DEFAULT

    async def fetch(self, offset: int, limit: int, timeout_s: float) -> list[Json]:
        """getUpdates. A second poller that has to wait ends the first one's wait."""
        if self.webhook is not None:
            raise Refused(409, WEBHOOK_IS_SET)
        self._acknowledge(offset)
        if not self.pending and timeout_s > 0:
            self._end_poll(OTHER_POLLER)
            mine = self._poll = asyncio.get_running_loop().create_future()
            self.world.changed()
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(mine, timeout_s)
            finally:
                if self._poll is mine:
                    self._poll = None
        return self.pending[:limit]

    def _acknowledge(self, offset: int) -> None:
        if offset < 0:
            del self.pending[:offset]
        elif offset > 0:
            self.pending = [one for one in self.pending if one["update_id"] >= offset]
        fresh = self.world.now() - _KEPT_S
        self.pending = [one for one in self.pending if self._arose_at[one["update_id"]] > fresh]
        self.world.changed()

    def _end_poll(self, reason: str) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_exception(Refused(409, reason))

    def set_webhook(self, webhook: Webhook | None) -> None:
        self.webhook = webhook
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        if webhook is not None:
            self._end_poll(WEBHOOK_WAS_SET)
            self._sender = asyncio.create_task(self._post_all(webhook))

    async def _post_all(self, webhook: Webhook) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                self._arrived.clear()
                if not self.pending:
                    await self._arrived.wait()
                    continue
                update = self.pending[0]
                if await self._post(session, webhook, update):
                    self.pending.remove(update)
                    webhook.n_posted += 1
                    self.world.changed()
                else:
                    self.world.changed()
                    await asyncio.sleep(_AGAIN_AFTER_S)  # the real server tries again too, after longer waits

    async def _post(self, session: aiohttp.ClientSession, webhook: Webhook, update: Json) -> bool:
        secret = webhook.secret_token
        headers = {"X-Telegram-Bot-Api-Secret-Token": secret} if secret else {}
        try:
            async with session.post(webhook.url, json=update, headers=headers) as response:
                if 200 <= response.status < 300:
                    return True
                webhook.last_error = f"Wrong response from the webhook: {response.status} {response.reason}"
        except aiohttp.ClientError as error:
            webhook.last_error = f"Connection failed: {type(error).__name__}"
        webhook.last_error_date = int(self.world.now())
        return False

    async def close(self) -> None:
        """End whoever still waits, so that the server can stop."""
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)
        if self._sender is not None:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
