"""Telegram, through python-telegram-bot's Bot. Translates; the services decide."""

from claasbot.chat.telegram.client import TelegramChat
from claasbot.chat.telegram.receiving import TelegramRules

__all__ = ["TelegramChat", "TelegramRules"]
