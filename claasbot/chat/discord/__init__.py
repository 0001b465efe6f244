"""Discord, through discord.py: its events become chat events, replies become messages."""

from claasbot.chat.discord.client import DiscordChat, account_of

__all__ = ["DiscordChat", "account_of"]
