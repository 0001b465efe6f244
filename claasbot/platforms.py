"""The bot accounts that have a token, as chat clients. A platform's library is imported where a token needs it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from claasbot.chat.discord import tokens as discord_tokens
from claasbot.chat.telegram import tokens as telegram_tokens
from claasbot.data_folder import DataFolder
from claasbot.doctor import Accounts
from claasbot.errors import SettingsError
from claasbot.masking import keep_secret
from claasbot.ports import ChatClient
from claasbot.services.admin_commands import HELP as ADMIN_HELP
from claasbot.services.commands import ALIASES, HELP, WITH_ARGUMENT
from claasbot.settings import DiscordSettings, Settings, TelegramSettings
from claasbot.storage import completions
from claasbot.storage.store import Store
from claasbot.web.parts import Webhook

if TYPE_CHECKING:
    from claasbot.chat.discord.client import DiscordChat
    from claasbot.chat.telegram.client import TelegramChat

PLATFORMS = ("telegram", "discord")
"""Their lights begin with these names."""
_TELEGRAM_SECRET = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name


def bot_accounts(settings: Settings) -> tuple[Accounts, ...]:
    """The platforms that have a token, for the doctor; no library is needed for that."""
    telegram = _accounts("telegram", settings.telegram.tokens, telegram_tokens.account_of)
    discord = _accounts("discord", settings.discord.tokens, discord_tokens.account_of, discord_tokens.invitation)
    return tuple(one for one in (telegram, discord) if one.n_tokens)


def _accounts(
    platform: str,
    tokens: tuple[SecretStr, ...],
    account_of: Callable[[str], str],
    invitation: Callable[[str], str] | None = None,
) -> Accounts:
    troubles, invitations = [], []
    for token in tokens:
        try:
            account_of(token.get_secret_value())
        except SettingsError as error:
            troubles.append(str(error))
        else:
            invitations += [invitation(token.get_secret_value())] if invitation is not None else []
    return Accounts(platform=platform, n_tokens=len(tokens), troubles=tuple(troubles), invitations=tuple(invitations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """The bot accounts that have a token, and who takes the updates of those that are called."""

    clients: tuple[ChatClient, ...]
    webhooks: dict[tuple[str, str], Webhook]


def platforms(settings: Settings, data: DataFolder, store: Store) -> Platforms:
    """Their libraries are imported where a token needs them. Raises SettingsError for a token that is none."""
    telegram = [_telegram(token.get_secret_value(), settings.telegram, store) for token in settings.telegram.tokens]
    discord = [_discord(token.get_secret_value(), settings.discord, data, store) for token in settings.discord.tokens]
    webhooks = {
        (one.platform, one.bot_account): Webhook(receive=one.receive, secret_header=_TELEGRAM_SECRET)
        for one in telegram
    }
    return Platforms(clients=(*telegram, *discord), webhooks=webhooks)


def _telegram(token: str, settings: TelegramSettings, store: Store) -> TelegramChat:
    from claasbot.chat.telegram.client import TelegramChat
    from claasbot.chat.telegram.receiving import TelegramRules

    account = telegram_tokens.account_of(token)
    rules = TelegramRules(
        token=token,
        base_url=settings.base_url,
        base_file_url=settings.base_file_url,
        webhook_url=f"{settings.webhook_url.rstrip('/')}/webhooks/telegram/{account}" if settings.webhook_url else "",
        webhook_secret=keep_secret(secrets.token_urlsafe(32)) if settings.webhook_url else "",
    )
    return TelegramChat(
        rules,
        commands=HELP,
        unlisted=frozenset(ADMIN_HELP) | ALIASES.keys(),
        chat_of_message=chat_of_message(store, account),
    )


def _discord(token: str, settings: DiscordSettings, data: DataFolder, store: Store) -> DiscordChat:
    from claasbot.chat.discord.client import DiscordChat

    account = discord_tokens.account_of(token)
    return DiscordChat(
        token,
        commands=HELP | ADMIN_HELP,
        with_argument=WITH_ARGUMENT,
        synced_path=data.root / f"discord-commands-{account}",
        recent_messages=partial(store.run, completions.recent_messages, "discord", account),
        message_content=settings.message_content,
        api_base=settings.api_base or None,
        gateway=settings.gateway or None,
    )


def chat_of_message(store: Store, account: str) -> Callable[[str, str], Awaitable[str | None]]:
    async def found(chat: str, message_key: str) -> str | None:
        return await store.run(completions.chat_of_message, "telegram", account, chat, message_key)

    return found
