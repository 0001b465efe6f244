"""Updates, by polling or by webhook: committed first and acknowledged after. Trouble is told by `health`, never raised.

python-telegram-bot's own Updater acknowledges a batch before anybody has handled it: a crash would lose it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from telegram.error import RetryAfter, TelegramError

from claasbot.chat.telegram.addressing import Identity
from claasbot.chat.telegram.bot import API_URL, FILE_URL, RawBot
from claasbot.chat.telegram.intake import Intake
from claasbot.chat.telegram.outgoing import Timing
from claasbot.chat.telegram.refusals import pause_s, scrubbed, trouble
from claasbot.chat.telegram.tokens import account_of
from claasbot.chat.telegram.updates import RECEIVED
from claasbot.domain.conversation import ChatEvent
from claasbot.errors import ChatError, ClaasbotError, SettingsError
from claasbot.ports import Accept, ClientHealth

log = logging.getLogger(__name__)

State = Literal["ok", "busy", "down"]

_LOOK_AT_WEBHOOK_S = 300.0
_STORE_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramRules:
    """What the host decides about one bot account. Raises SettingsError for a webhook without a secret."""

    token: str = field(repr=False)
    base_url: str = API_URL
    base_file_url: str = FILE_URL
    webhook_url: str = ""
    """Where Telegram reaches us by HTTPS; empty: we poll, which needs no public address."""
    webhook_secret: str = field(default="", repr=False)
    poll_s: int = 25
    watchdog_s: float = 30.0
    """A poll that takes so much longer than `poll_s` is begun anew."""

    def __post_init__(self) -> None:
        account_of(self.token)
        if self.webhook_url and not self.webhook_secret:
            raise SettingsError("telegram.webhook_url needs a secret of its own: anybody could write updates there")


class Receiver:
    """`answer_press` gets the id of each press that was accepted."""

    def __init__(
        self,
        bot: RawBot,
        rules: TelegramRules,
        commands: Mapping[str, str],
        unlisted: frozenset[str],
        intake: Intake,
        timing: Timing,
        answer_press: Callable[[str], None],
    ) -> None:
        self._bot = bot
        self._rules = rules
        self._menu = commands
        self._commands = frozenset(commands) | unlisted
        self._intake = intake
        self._timing = timing
        self._answer_press = answer_press
        self._one_at_a_time = asyncio.Lock()
        self._accept: Accept | None = None
        self._offset: int | None = None
        self._is_connected = False
        self._is_privacy_on = True
        self._n_failures = 0
        self.me = Identity(bot_id=int(account_of(rules.token)), username="", commands=self._commands)
        self.health = ClientHealth(state="busy", detail="connecting to Telegram")

    async def run(self, accept: Accept) -> None:
        """Until cancelled."""
        self._accept = accept
        try:
            while True:
                wait_s = await self._round()
                if wait_s > 0:
                    await self._timing.sleep(wait_s)
        finally:
            self._accept = None
            self._is_connected = False
            self.health = ClientHealth(state="down", detail="not running")

    async def receive(self, update: Mapping[str, Any], secret: str | None) -> bool:
        """From the web server; False when the secret is wrong.

        Raises ChatError before `run` has connected and StoreError when nothing can be committed: answer with 503,
        and Telegram sends the update again.
        """
        expected = self._rules.webhook_secret
        given = (secret or "").encode(errors="surrogatepass")  # a header may hold bytes that are no text
        if not expected or not hmac.compare_digest(given, expected.encode()):
            return False
        if self._accept is None or not self._is_connected:
            raise ChatError("Telegram is not connected yet; the update is sent again")
        async with self._one_at_a_time:
            await self._take(update, self._accept)
        return True

    async def accept(self, event: ChatEvent) -> None:
        """An event that no update told; lost where nobody runs."""
        if self._accept is not None:
            await self._accept(event)

    async def _round(self) -> float:
        """Connect if need be, and receive once; how long to wait before the next round."""
        try:
            if not self._is_connected:
                await self._connect()
            wait_s = await (self._look_at_webhook() if self._rules.webhook_url else self._poll())
        except TimeoutError:
            return self._failed("a poll did not come back and is begun anew: check the network if this repeats", 0.0)
        except TelegramError as error:
            self._n_failures += 1
            state: State = "busy" if isinstance(error, RetryAfter) else "down"
            return self._failed(trouble(error), pause_s(error, self._n_failures), state)
        except ClaasbotError as error:
            return self._failed(f"an update cannot be stored and waits: {error}", _STORE_PAUSE_S)
        except Exception as error:  # the outermost loop: its traceback may hold people's text
            self._n_failures += 1
            log.error("receiving failed by %s", type(error).__name__)
            what = f"receiving failed ({type(error).__name__}): see the log; it is tried again"
            return self._failed(what, pause_s(error, self._n_failures))
        self._n_failures = 0
        return wait_s

    def _failed(self, detail: str, wait_s: float, state: State = "down") -> float:
        if detail != self.health.detail:
            log.warning("telegram: %s", detail)
        self.health = ClientHealth(state=state, detail=detail)
        return wait_s

    async def _connect(self) -> None:
        user = await self._bot.get_me()
        self.me = Identity(bot_id=user.id, username=user.username or "", commands=self._commands)
        self._is_privacy_on = not user.can_read_all_group_messages
        if self._rules.webhook_url:
            # One connection keeps the order: a row in the inbox is all that an update waits for.
            await self._bot.set_webhook(
                self._rules.webhook_url,
                max_connections=1,
                allowed_updates=RECEIVED,
                secret_token=self._rules.webhook_secret,
            )
        else:
            await self._bot.delete_webhook()
        await self._set_menu()
        self._is_connected = True

    async def _set_menu(self) -> None:
        """The list behind "/": nice to have."""
        try:
            await self._bot.set_my_commands(list(self._menu.items()))
        except TelegramError as error:
            log.warning("telegram: the menu of commands was not set: %s", scrubbed(error))

    async def _poll(self) -> float:
        poll_s = self._rules.poll_s if self.health.state == "ok" else 0  # after trouble, know at once that it is over
        async with asyncio.timeout(poll_s + self._rules.watchdog_s):
            updates = await self._bot.raw_updates(self._offset, poll_s, RECEIVED)
        self._well("polling")
        assert self._accept is not None
        for update in updates:
            await self._take(update, self._accept)
            self._offset = update["update_id"] + 1
        return 0.0

    async def _look_at_webhook(self) -> float:
        """Somebody who polls with the same token takes the webhook away, and nobody would notice."""
        info = await self._bot.get_webhook_info()
        if info.url != self._rules.webhook_url:
            self._is_connected = False
            return self._failed("the webhook was taken away: stop the other program with this token", _STORE_PAUSE_S)
        self._well("by webhook")
        if info.last_error_message:
            waiting = f"{info.pending_update_count} updates wait" if info.pending_update_count else "none wait now"
            self.health = ClientHealth(
                state="busy" if info.pending_update_count else "ok",
                detail=f"Telegram's last trouble with the webhook: {info.last_error_message} ({waiting})",
            )
        return _LOOK_AT_WEBHOOK_S

    async def _take(self, update: Mapping[str, Any], accept: Accept) -> None:
        press = await self._intake.take(update, self.me, accept)
        if press is not None:
            self._answer_press(press)

    def _well(self, how: str) -> None:
        privacy = "; in groups I see what is addressed to me" if self._is_privacy_on else ""
        self.health = ClientHealth(state="ok", detail=f"@{self.me.username}, {how}{privacy}")
